package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

const (
	mediaTypeOCIIndex      = "application/vnd.oci.image.index.v1+json"
	mediaTypeOCIManifest   = "application/vnd.oci.image.manifest.v1+json"
	mediaTypeDockerList    = "application/vnd.docker.distribution.manifest.list.v2+json"
	mediaTypeDockerSchema2 = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeSchema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	mediaTypeSchema1       = "application/vnd.docker.distribution.manifest.v1+json"
)

// acceptManifest names everything that a tag may point to. A registry that is asked for less converts the manifest, or
// says that it is not there; schema 1 is asked for so that it is seen and can be refused by name.
const acceptManifest = mediaTypeOCIIndex + ", " + mediaTypeOCIManifest + ", " + mediaTypeDockerList + ", " +
	mediaTypeDockerSchema2 + ", " + mediaTypeSchema1Signed + ";q=0.5, " + mediaTypeSchema1 + ";q=0.5, */*;q=0.1"

const headerDigest = "Docker-Content-Digest"

// Manifest reads a manifest by tag or digest (distribution specification, "Pulling manifests"): at most 4 MiB, a JSON
// object whose digest is what the registry says and, for a digest reference, what was asked for.
func (r *Registry) Manifest(ctx context.Context, repository, reference string) (Manifest, error) {
	return r.readManifest(ctx, repository, reference, parseManifest)
}

// readManifest is Manifest with the answer read by parse.
func (r *Registry) readManifest(
	ctx context.Context, repository, reference string, parse func(call, *answer) (Manifest, error),
) (Manifest, error) {
	c, err := r.manifestCall("read manifest", repository, reference, auth.ActionPull)
	if err != nil {
		return Manifest{}, err
	}
	a, err := r.get(ctx, c, http.Header{"Accept": {acceptManifest}})
	if err != nil {
		return Manifest{}, err
	}
	if a.status != http.StatusOK {
		return Manifest{}, r.unexpected(c, a)
	}
	m, err := parse(c, a)
	if err != nil {
		return Manifest{}, r.malformed(c, a.status, "%w", err)
	}
	return m, nil
}

// manifestCall checks the names before they become part of an address.
func (r *Registry) manifestCall(op, repository, reference string, actions ...string) (call, error) {
	c := call{op: op, kind: kindManifest, limit: maxManifest}.on(repository, reference, actions...)
	if err := errors.Join(ValidRepository(repository), ValidReference(reference)); err != nil {
		return c, r.invalid(c, err)
	}
	c.path = "/v2/" + repository + "/manifests/" + reference
	return c, nil
}

// parseManifest checks the bytes against all digests that are known.
func parseManifest(c call, a *answer) (Manifest, error) {
	if err := whole(a, c.limit); err != nil {
		return Manifest{}, err
	}
	fields, err := peek(a.body)
	if err != nil {
		return Manifest{}, err
	}
	mediaType := fields.mediaTypeOr(a.header)
	if mediaType == "" {
		return Manifest{}, errors.New("manifest without a media type")
	}
	sum := sumOf(a.body)
	for _, known := range []string{a.header.Get(headerDigest), referenceDigest(c.reference)} {
		if known == "" || known == sum {
			continue
		}
		if err := verify(a.body, known); err != nil {
			if isSchema1(mediaType) {
				return Manifest{}, errors.New("manifests of Docker schema 1 are not supported")
			}
			return Manifest{}, err
		}
		sum = known
	}
	return Manifest{
		Descriptor: Descriptor{
			MediaType: mediaType, Digest: sum, Size: int64(len(a.body)),
			ArtifactType: fields.ArtifactType, Annotations: fields.Annotations,
		},
		Bytes: a.body,
	}, nil
}

// describedManifest is parseManifest for who needs no more than a tag's digest and bytes. Where the headers say all and the
// bytes have the digest that they say, the JSON is left to who reads it.
func describedManifest(c call, a *answer) (Manifest, error) {
	sum, mediaType := a.header.Get(headerDigest), saidMediaType(a.header)
	if whole(a, c.limit) != nil || mediaType == "" || isSchema1(mediaType) || !isSHA256(sum) || sumOf(a.body) != sum {
		return parseManifest(c, a)
	}
	return Manifest{Descriptor: Descriptor{MediaType: mediaType, Digest: sum, Size: int64(len(a.body))}, Bytes: a.body}, nil
}

// manifestFields are those that tell what a manifest is.
type manifestFields struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Annotations  map[string]string `json:"annotations"`
	Manifests    json.RawMessage   `json:"manifests"`
	Config       json.RawMessage   `json:"config"`
}

func peek(body []byte) (manifestFields, error) {
	var fields manifestFields
	if err := json.Unmarshal(body, &fields); err != nil {
		return fields, fmt.Errorf("manifest is not a JSON object of the expected form: %w", err)
	}
	return fields, nil
}

// mediaTypeOr returns the media type that the header says; one that says nothing, as proxies and plain file servers
// send it, gives way to the manifest's own, and that to its form.
func (f manifestFields) mediaTypeOr(header http.Header) string {
	if said := saidMediaType(header); said != "" {
		return said
	}
	switch {
	case f.MediaType != "":
		return f.MediaType
	case f.Manifests != nil:
		return mediaTypeOCIIndex
	case f.Config != nil:
		return mediaTypeOCIManifest
	}
	return ""
}

// saidMediaType is the header's media type without parameters, or "" when it is none of a manifest.
func saidMediaType(header http.Header) string {
	mediaType, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	switch mediaType {
	case "application/json", "application/octet-stream":
		return ""
	}
	if strings.HasPrefix(mediaType, "text/") {
		return ""
	}
	return mediaType
}

func isSchema1(mediaType string) bool {
	return mediaType == mediaTypeSchema1 || mediaType == mediaTypeSchema1Signed
}

func referenceDigest(reference string) string {
	if isDigest(reference) {
		return reference
	}
	return ""
}

// verify compares content with a digest that somebody said.
func verify(content []byte, said string) error {
	if isSHA256(said) && sumOf(content) == said {
		return nil
	}
	if err := validDigest(said); err != nil {
		return err
	}
	if sum := digest.Digest(said).Algorithm().FromBytes(content).String(); sum != said {
		return fmt.Errorf("content has the digest %s and not %s", sum, said)
	}
	return nil
}

// resolve looks at one tag; nil means that the registry says that it does not exist.
func (r *Registry) resolve(ctx context.Context, repository, name string) (*Tag, error) {
	if tag, settled, err := r.carry(ctx, repository, name); settled {
		return tag, err
	}
	if tag, err := r.head(ctx, repository, name); tag != nil || err != nil {
		return tag, err
	}
	return r.resolveByBody(ctx, repository, name)
}

// glance looks at one tag with one request; nil means that it seems not to exist, which anybody may have said.
func (r *Registry) glance(ctx context.Context, repository, name string) (*Tag, error) {
	if tag, settled, err := r.carry(ctx, repository, name); settled {
		return tag, err
	}
	return r.head(ctx, repository, name)
}

// head looks at one tag; nil means that HEAD says that it does not exist, which anybody may have said.
func (r *Registry) head(ctx context.Context, repository, name string) (*Tag, error) {
	c, err := r.manifestCall("resolve tag", repository, name, auth.ActionPull)
	if err != nil {
		return nil, err
	}
	a, err := r.exchange(ctx, c, http.MethodHead, r.url(c.path, nil), http.Header{"Accept": {acceptManifest}}, nil)
	if err != nil {
		return nil, err
	}
	switch a.status {
	case http.StatusOK:
		if tag := describedByHead(name, a); tag != nil {
			return tag, nil
		}
		return r.resolveByBody(ctx, repository, name)
	case http.StatusNotFound:
		return nil, nil
	}
	return nil, r.unexpected(c, a)
}

// describedByHead reads what a HEAD answer says; nil if it does not say everything.
func describedByHead(name string, a *answer) *Tag {
	sum, mediaType := a.header.Get(headerDigest), saidMediaType(a.header)
	if validDigest(sum) != nil || mediaType == "" || a.length <= 0 {
		return nil
	}
	return &Tag{Name: name, Digest: sum, MediaType: mediaType, Size: a.length}
}

// resolveByBody asks with GET what HEAD did not settle: a 404, which without a body could be anybody's, or headers that
// do not say everything.
func (r *Registry) resolveByBody(ctx context.Context, repository, name string) (*Tag, error) {
	m, err := r.Manifest(ctx, repository, name)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &Tag{Name: name, Digest: m.Digest, MediaType: m.MediaType, Size: m.Size}, nil
}

// PutManifest writes a manifest under a tag or under its digest (distribution specification, "Pushing Manifests"), and
// makes sure that what was stored has the digest of m. It is tried again where that may help: writing twice is writing
// once. ErrBlobUnknown means that the repository lacks something that m refers to.
func (r *Registry) PutManifest(ctx context.Context, repository, reference string, m Manifest) error {
	c, err := r.manifestCall("write manifest", repository, reference, auth.ActionPull, auth.ActionPush)
	if err != nil {
		return err
	}
	if err := checkOwn(reference, m); err != nil {
		return r.invalid(c, err)
	}
	header := http.Header{"Content-Type": {m.MediaType}}
	a, err := r.exchange(ctx, c, http.MethodPut, r.url(c.path, nil), header, m.Bytes)
	if err != nil {
		return err
	}
	if a.status != http.StatusCreated && a.status != http.StatusOK {
		return r.refusedManifest(c, a)
	}
	stored := a.header.Get(headerDigest)
	if stored == "" {
		if stored, err = r.storedDigest(ctx, repository, reference); err != nil {
			return err
		}
	}
	if stored != m.Digest {
		return r.malformed(c, a.status, "stored as %s and not as %s", stored, m.Digest)
	}
	return nil
}

// checkOwn refuses to send bytes that are not what they are said to be.
func checkOwn(reference string, m Manifest) error {
	if m.MediaType == "" {
		return errors.New("manifest without a media type")
	}
	if err := verify(m.Bytes, m.Digest); err != nil {
		return err
	}
	if isDigest(reference) && reference != m.Digest {
		return fmt.Errorf("manifest %s cannot be written as %s", m.Digest, reference)
	}
	return nil
}

// refusedManifest tells the lack of referenced content from other refusals.
func (r *Registry) refusedManifest(c call, a *answer) *Error {
	e := r.unexpected(c, a)
	if a.saysAnyOf(errcode.ErrorCodeManifestBlobUnknown, errcode.ErrorCodeBlobUnknown, errcode.ErrorCodeManifestUnknown) {
		e.Err = fmt.Errorf("%w: %s", ErrBlobUnknown, describe(a, a.errors()))
	}
	return e
}

// storedDigest asks what a registry that does not say so has stored.
func (r *Registry) storedDigest(ctx context.Context, repository, reference string) (string, error) {
	m, err := r.Manifest(ctx, repository, reference)
	return m.Digest, err
}
