package transfer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/antipode-registry/antipode/internal/registry"
)

// missing is the problem of what the registry says it does not have.
const missing = "is missing"

// maxCuts is how often in a row a download may end at the same byte before that is the blob's fault.
const maxCuts = 3

// finding is what a look at a manifest or a blob came to.
type finding struct {
	problem string // "" = none
	certain bool   // nothing but damage explains it
}

// judge sorts what a registry answered: damage, perhaps, or an error that says nothing about the content.
func judge(err error) (finding, error) {
	if err == nil {
		return finding{}, nil
	}
	if errors.Is(err, registry.ErrNotFound) {
		return finding{missing, true}, nil
	}
	said, ok := errors.AsType[*registry.Error](err)
	if !ok {
		return finding{}, err
	}
	switch {
	case errors.Is(err, registry.ErrMalformed) && (said.Status == 0 || said.Status/100 == 2):
		return finding{problem: "is damaged: " + said.Err.Error()}, nil
	case said.Status == http.StatusInternalServerError && said.Code != "":
		return finding{problem: fmt.Sprintf("cannot be read by the registry: HTTP %d %s", said.Status, said.Code)}, nil
	}
	return finding{}, err
}

// settle looks and, when it finds what may have another cause than damage, asks for something that must be denied and
// looks once more.
func (c *check) settle(
	ctx context.Context, denies func(context.Context) error, look func(context.Context) (finding, error),
) (problem string, err error) {
	found, err := look(ctx)
	if err != nil || found.problem == "" || found.certain {
		return found.problem, err
	}
	if err := denies(ctx); err != nil {
		return "", fmt.Errorf("%s; and so is more than this: %w", found.problem, err)
	}
	found, err = look(ctx)
	return found.problem, err
}

// deniesManifest returns an error unless the registry says that a manifest which cannot be there is not.
func (c *check) deniesManifest(ctx context.Context) error {
	_, err := c.from.Manifest(ctx, c.repository, impossible())
	switch {
	case errors.Is(err, registry.ErrNotFound):
		return nil
	case err == nil:
		return errors.New("the registry has a manifest of a random digest")
	}
	return err
}

// deniesBlob is the same for a blob.
func (c *check) deniesBlob(ctx context.Context) error {
	_, found, err := c.from.HasBlob(ctx, c.repository, impossible())
	if err == nil && found {
		return errors.New("the registry has a blob of a random digest")
	}
	return err
}

func impossible() string { return digest.FromString(rand.Text()).String() }

// readBlob reads a blob whole and compares its digest.
func (c *check) readBlob(ctx context.Context, desc registry.Descriptor) (problem string, err error) {
	return c.settle(ctx, c.deniesBlob, func(ctx context.Context) (finding, error) {
		r := reading{check: c, desc: desc, hash: digest.Digest(desc.Digest).Algorithm().Hash()}
		return r.run(ctx)
	})
}

// reading is one reading of a blob, through as many connections as it takes.
type reading struct {
	*check
	desc   registry.Descriptor
	hash   hash.Hash
	offset int64 // bytes read
	most   int64 // bytes that were read at any time: where ranges are ignored, reading begins anew
	cuts   int   // connections in a row that did not get further
}

func (r *reading) run(ctx context.Context) (finding, error) {
	for {
		err := r.connect(ctx)
		switch {
		case err == nil:
			return r.compare(), nil
		case ctx.Err() != nil:
			return finding{}, context.Cause(ctx)
		case errors.Is(err, registry.ErrRangeIgnored):
			r.hash.Reset()
			r.offset = 0
		case !errors.Is(err, io.ErrUnexpectedEOF):
			return judge(err)
		}
		if r.cuts++; r.cuts > maxCuts {
			return finding{problem: fmt.Sprintf("ends after %d of %d bytes", r.most, r.desc.Size)}, nil
		}
		if err := pause(ctx, backoffMin<<r.cuts); err != nil {
			return finding{}, err
		}
	}
}

// connect reads on from where the last connection ended.
func (r *reading) connect(ctx context.Context) error {
	body, err := r.from.Blob(ctx, r.repository, r.desc, r.offset)
	if err != nil {
		return err
	}
	n, err := io.Copy(r.hash, body)
	_ = body.Close() // only read from
	r.offset += n
	if r.offset > r.most {
		r.most, r.cuts = r.offset, 0
	}
	if err == nil && r.offset < r.desc.Size {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r *reading) compare() finding {
	want := digest.Digest(r.desc.Digest)
	if got := digest.NewDigest(want.Algorithm(), r.hash); got != want {
		return finding{fmt.Sprintf("is damaged: its %d bytes have the digest %s", r.offset, got), true}
	}
	return finding{}
}

// pause waits, or returns why it did not.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
