package registry

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2/registry/remote/auth"
)

const (
	mediaTypeOCIConfig   = "application/vnd.oci.image.config.v1+json"
	throwAwayAnnotation  = "antipode.throw-away"
	emptyConfig          = "{}"
	throwAwayProbeMarker = "probe"
)

// DeleteManifest deletes a manifest by digest, and with it every tag that points to it (distribution specification,
// "Content Management"). One that is not there is no error.
func (r *Registry) DeleteManifest(ctx context.Context, repository, digest string) error {
	c, err := r.manifestCall("delete manifest", repository, digest, auth.ActionDelete)
	if err != nil {
		return err
	}
	if !isDigest(digest) {
		return r.invalid(c, fmt.Errorf("%q is not a digest", digest))
	}
	a, err := r.exchange(ctx, c, http.MethodDelete, r.url(c.path, nil), nil, nil)
	if err != nil {
		return err
	}
	if deleted(a) || a.saysNotFound() {
		return nil
	}
	return r.unexpected(c, a)
}

// DeleteTag deletes one tag and nothing else; one that is not there is no error.
//
// Where the registry deletes by tag (distribution specification, "Deleting tags") that is one request. Where it does
// not, such as distribution 2.8, which deletes by digest alone and with that all tags of the digest, the tag is moved
// to a throw-away manifest of its own, which is then deleted by digest. That this registry deletes by digest at all is
// tried first, on a manifest without a tag, so that a tag is not spoiled where deletes are not allowed.
//
// That way has a window: a tag that somebody else moves between the look at it and its overwriting loses that move.
// Moved after the overwriting, the tag stays: it no longer points to what is deleted. When the deletion fails after
// the overwriting, the tag points to the throw-away manifest and the error says so; DeleteTag called again finishes.
func (r *Registry) DeleteTag(ctx context.Context, repository, tag string) error {
	c, err := r.manifestCall("delete tag", repository, tag, auth.ActionDelete)
	if err != nil {
		return err
	}
	if isDigest(tag) {
		return r.invalid(c, fmt.Errorf("%q is not a tag", tag))
	}
	if r.tagDeleteRefused.Load() {
		return r.replaceTag(ctx, c, repository, tag)
	}
	a, err := r.exchange(ctx, c, http.MethodDelete, r.url(c.path, nil), nil, nil)
	switch {
	case err != nil:
		return err
	case deleted(a):
		return nil
	case !a.saysNotFound() && !refuses(a):
		return r.unexpected(c, a)
	}
	// Either the registry does not know the tag, or it knows digests alone here: looking at the tag tells which.
	return r.replaceTag(ctx, c, repository, tag)
}

// deleted recognizes success. A page for people is none, whatever its status: a proxy has answered in the registry's
// place, and nothing was deleted.
func deleted(a *answer) bool {
	if isHTML(a.header) {
		return false
	}
	return a.status == http.StatusAccepted || a.status == http.StatusOK || a.status == http.StatusNoContent
}

// refuses recognizes the registry's own word that it cannot delete by tag: 2.8 calls the tag an invalid digest, others
// say that this is not supported. A proxy's word is not enough.
func refuses(a *answer) bool {
	switch a.status {
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return len(a.errors()) > 0
	}
	return false
}

// replaceTag deletes a tag, if it is there, by way of a throw-away manifest, and remembers that this host needs it.
func (r *Registry) replaceTag(ctx context.Context, c call, repository, tag string) error {
	if current, err := r.resolve(ctx, repository, tag); err != nil || current == nil {
		return err
	}
	if err := r.tryDigestDelete(ctx, repository); err != nil {
		return err
	}
	spare := throwAway(rand.Text())
	if err := r.putThrowAway(ctx, repository, tag, spare); err != nil {
		return err
	}
	r.tagDeleteRefused.Store(true)
	if err := r.DeleteManifest(ctx, repository, spare.Digest); err != nil {
		e := r.fail(c, 0, fmt.Errorf("the tag now points to the throw-away manifest %s, which could not be deleted;"+
			" deleting the tag again finishes this: %w", spare.Digest, err))
		if cause, ok := errors.AsType[*Error](err); ok {
			e.Status, e.Code = cause.Status, cause.Code
			// Deletes may have been switched off: the next tag is not overwritten before that is looked at again.
			r.digestDeleteSeen.Store(false)
		}
		return e
	}
	return nil
}

// tryDigestDelete finds out, once for a handle, whether the registry deletes by digest.
func (r *Registry) tryDigestDelete(ctx context.Context, repository string) error {
	if r.digestDeleteSeen.Load() {
		return nil
	}
	probe := throwAway(throwAwayProbeMarker)
	if err := r.putThrowAway(ctx, repository, probe.Digest, probe); err != nil {
		return err
	}
	if err := r.DeleteManifest(ctx, repository, probe.Digest); err != nil {
		return err
	}
	r.digestDeleteSeen.Store(true)
	return nil
}

// throwAway makes a manifest that nothing else has as long as marker is unique: an image of one empty layer.
func throwAway(marker string) Manifest {
	config := map[string]any{
		"mediaType": mediaTypeOCIConfig,
		"digest":    digest.FromString(emptyConfig).String(),
		"size":      len(emptyConfig),
	}
	body, err := json.Marshal(map[string]any{
		"schemaVersion": 2,
		"mediaType":     mediaTypeOCIManifest,
		"config":        config,
		"layers":        []any{},
		"annotations":   map[string]string{throwAwayAnnotation: marker},
	})
	if err != nil {
		panic("registry: a manifest of constants cannot be encoded: " + err.Error())
	}
	return Manifest{
		Descriptor: Descriptor{
			MediaType: mediaTypeOCIManifest, Digest: digest.FromBytes(body).String(), Size: int64(len(body)),
		},
		Bytes: body,
	}
}

// putThrowAway writes the manifest, and its config where the repository does not have that yet.
func (r *Registry) putThrowAway(ctx context.Context, repository, reference string, m Manifest) error {
	err := r.PutManifest(ctx, repository, reference, m)
	if !errors.Is(err, ErrBlobUnknown) {
		return err
	}
	if err := r.putEmptyConfig(ctx, repository); err != nil {
		return err
	}
	return r.PutManifest(ctx, repository, reference, m)
}

func (r *Registry) putEmptyConfig(ctx context.Context, repository string) error {
	config := Descriptor{Digest: digest.FromString(emptyConfig).String(), Size: int64(len(emptyConfig))}
	content := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(emptyConfig)), nil }
	_, err := r.PutBlob(ctx, repository, config, "", content)
	return err
}
