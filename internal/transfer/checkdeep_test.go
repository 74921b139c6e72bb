package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/internal/transfer"
)

// cut gives n bytes of body and then breaks, as a connection does.
func cut(body []byte, n int) io.ReadCloser {
	return io.NopCloser(io.MultiReader(bytes.NewReader(body[:n]), broken{}))
}

type broken struct{}

func (broken) Read([]byte) (int, error) {
	return 0, answered(0, "", errors.Join(registry.ErrUnavailable, io.ErrUnexpectedEOF))
}

// TestDeepCheckReadsOnAfterABreak: a download that breaks is read on, and only one that never gets past a byte is the
// blob's fault.
func TestDeepCheckReadsOnAfterABreak(t *testing.T) {
	t.Parallel()
	layer := registrytest.Bytes(1, 0, 1000)
	img := registrytest.NewImage(1, 0, 0, registrytest.WithLayers(layer))
	type answer = func(offset int64) (io.ReadCloser, error)
	tests := map[string]struct {
		blob    answer
		problem string
		want    error
		denies  error // what asking for a random blob comes to
	}{
		"breaks often": {blob: func(offset int64) (io.ReadCloser, error) {
			if offset < 900 {
				return cut(layer[offset:], 100), nil
			}
			return nil, nil
		}},
		"always at the same byte": {
			blob:    func(offset int64) (io.ReadCloser, error) { return cut(layer[offset:], max(0, 300-int(offset))), nil },
			problem: "ends after 300 of 1000 bytes",
		},
		"always at the same byte, without ranges": {
			blob: func(offset int64) (io.ReadCloser, error) {
				if offset > 0 {
					return nil, answered(200, "", registry.ErrRangeIgnored)
				}
				return cut(layer, 300), nil
			},
			problem: "ends after 300 of 1000 bytes",
		},
		"ends too soon": {
			blob: func(offset int64) (io.ReadCloser, error) {
				return io.NopCloser(bytes.NewReader(layer[offset:][:0])), nil
			},
			problem: "ends after 0 of 1000 bytes",
		},
		"breaks once, without ranges": {blob: once(func(int64) (io.ReadCloser, error) { return cut(layer, 300), nil },
			once(func(int64) (io.ReadCloser, error) { return nil, answered(200, "", registry.ErrRangeIgnored) }, nil))},
		"breaks, then nothing answers": {
			blob: once(func(int64) (io.ReadCloser, error) { return cut(layer, 300), nil },
				func(int64) (io.ReadCloser, error) { return nil, answered(0, "", registry.ErrUnavailable) }),
			want: registry.ErrUnavailable,
		},
		"another length": {
			blob:    func(int64) (io.ReadCloser, error) { return nil, answered(200, "", registry.ErrMalformed) },
			problem: "is damaged",
		},
		"another length of everything": {
			blob:   func(int64) (io.ReadCloser, error) { return nil, answered(200, "", registry.ErrMalformed) },
			denies: answered(200, "", registry.ErrMalformed), want: registry.ErrMalformed,
		},
		"cannot be read": {
			blob:    func(int64) (io.ReadCloser, error) { return nil, answered(500, "UNKNOWN", registry.ErrUnavailable) },
			problem: "HTTP 500 UNKNOWN",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				site := &reader{memory: newMemory(), onHasBlob: func(string) error { return test.denies }}
				site.push("app", img)
				site.onBlob = func(_ context.Context, desc registry.Descriptor, offset int64) (io.ReadCloser, error) {
					if desc.Digest != registrytest.Digest(layer) {
						return nil, nil
					}
					return test.blob(offset)
				}
				got, err := transfer.Check(t.Context(), site, "app", rootOf(img), transfer.CheckOptions{Deep: true})
				if !errors.Is(err, test.want) || err != nil && test.want == nil {
					t.Fatal(err)
				}
				problem := ""
				if len(got.Damages) > 0 {
					problem = got.Damages[0].Problem
				}
				if (problem == "") != (test.problem == "") || !strings.Contains(problem, test.problem) {
					t.Errorf("problem %q", problem)
				}
			})
		})
	}
}

// once answers with first once, and then with next; a nil next is the registry's own answer.
func once(first, next func(int64) (io.ReadCloser, error)) func(int64) (io.ReadCloser, error) {
	asked := false
	return func(offset int64) (io.ReadCloser, error) {
		switch {
		case !asked:
			asked = true
			return first(offset)
		case next != nil:
			return next(offset)
		}
		return nil, nil
	}
}
