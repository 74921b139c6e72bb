package registry

import (
	"context"
	"net/http"
	"time"
)

// Clock returns the time that the registry's answers carry (RFC 9110, section 6.6.1), to the second; the zero time when
// they carry none. It sends what Ping sends.
func (r *Registry) Clock(ctx context.Context) (time.Time, error) {
	c := call{op: "ask the time of", kind: kindBase, path: "/v2/", limit: maxErrorBody}
	answer, err := r.get(ctx, c, nil)
	if err != nil {
		return time.Time{}, err
	}
	if answer.status != http.StatusOK || isHTML(answer.header) {
		return time.Time{}, r.unexpected(c, answer)
	}
	at, err := http.ParseTime(answer.header.Get("Date"))
	if err != nil {
		return time.Time{}, nil //nolint:nilerr // no header, or one that says nothing
	}
	return at, nil
}

// PutProbe writes an image without layers under a tag, to see whether this account may write, and returns its digest.
// The image is the same for the same tag: however often a probe is written and not removed, one is left. Its config, a
// blob of two bytes, stays in the repository.
func (r *Registry) PutProbe(ctx context.Context, repository, tag string) (digest string, err error) {
	if err := r.putEmptyConfig(ctx, repository); err != nil {
		return "", err
	}
	probe := throwAway(tag)
	return probe.Digest, r.PutManifest(ctx, repository, tag, probe)
}
