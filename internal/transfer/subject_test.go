package transfer_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// Found hears of the root and of children, before the first write, and once.
func TestSubjectsAreToldBeforeAnythingIsWritten(t *testing.T) {
	t.Parallel()
	p := newPair()
	img := registrytest.NewImage(1, 1, 100)
	sig := registrytest.NewArtifact(2, "application/sig", registrytest.WithSubject(img))
	bundle := registrytest.NewIndex(img, sig)
	p.src.push("app", bundle, "v1")
	var told []string
	req := request(p.src, "app", bundle, "v1")
	req.Found = func(_ context.Context, digest, subject string) error {
		if calls := p.dst.calls(); len(calls) > 0 {
			t.Errorf("told after %v", calls)
		}
		told = append(told, digest+" of "+subject)
		return nil
	}
	if _, err := p.copier.Copy(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if want := []string{sig.Digest + " of " + img.Digest}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
	// What is known is not read again.
	req.Tags = []string{"v2"}
	if _, err := p.copier.Copy(t.Context(), req); err != nil || len(told) != 1 {
		t.Errorf("told %v, %v", told, err)
	}
}

func TestSubjectThatCannotBeNotedEndsTheCopy(t *testing.T) {
	t.Parallel()
	p := newPair()
	img := registrytest.NewImage(1, 1, 100)
	sig := registrytest.NewArtifact(2, "application/sig", registrytest.WithSubject(img))
	p.src.push("app", sig, "sig")
	full := errors.New("disk full")
	req := request(p.src, "app", sig, "sig")
	req.Found = func(context.Context, string, string) error { return full }
	if _, err := p.copier.Copy(t.Context(), req); !errors.Is(err, full) {
		t.Errorf("err = %v", err)
	}
	if calls := p.dst.calls(); len(calls) > 0 {
		t.Errorf("written: %v", calls)
	}
}
