package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// Referrers lists the manifests that have digest as their subject (distribution specification v1.1, "Listing
// Referrers"), complete or not at all. Supported is false when the registry does not have the API; the tag that stands
// in for it is not looked at. A 404 in any form says so, for that is how registries without the API answer. Once this handle has seen the API answer, anything but the registry's own word that
// the repository is not there is an error, so that a proxy's page does not pass for the loss of all signatures.
func (r *Registry) Referrers(
	ctx context.Context, repository, digest string,
) (list []Descriptor, supported bool, err error) {
	c := call{op: "list referrers of", kind: kindReferrers, limit: maxPage}.on(repository, digest, auth.ActionPull)
	if err := errors.Join(ValidRepository(repository), validDigest(digest)); err != nil {
		return nil, false, r.invalid(c, err)
	}
	c.path = "/v2/" + repository + "/referrers/" + digest
	known, visited := map[string]struct{}{}, map[string]struct{}{}
	for target := r.url(c.path, nil); target != nil; {
		visited[target.RequestURI()] = struct{}{}
		a, err := r.exchange(ctx, c, http.MethodGet, target, http.Header{"Accept": {mediaTypeOCIIndex}}, nil)
		if err != nil {
			return nil, false, err
		}
		if a.status != http.StatusOK {
			return r.noReferrers(c, a)
		}
		page, err := parseReferrers(c, a)
		if err != nil {
			return nil, false, r.malformed(c, a.status, "%w", err)
		}
		for _, one := range page {
			if _, again := known[one.Digest]; !again {
				known[one.Digest] = struct{}{}
				list = append(list, one)
			}
		}
		if target, err = r.nextReferrers(c, a, visited); err != nil {
			return nil, false, r.malformed(c, a.status, "%w", err)
		}
	}
	r.referrersSeen.Store(true)
	return list, true, nil
}

// noReferrers tells "no such API" from failures.
func (r *Registry) noReferrers(c call, a *answer) ([]Descriptor, bool, error) {
	if r.referrersSeen.Load() {
		if a.saysNotFound() {
			return nil, true, nil // the repository is gone, and its referrers with it
		}
		return nil, false, r.unexpected(c, a)
	}
	switch a.status {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return nil, false, nil
	case http.StatusBadRequest:
		if a.saysAnyOf(errcode.ErrorCodeUnsupported) {
			return nil, false, nil
		}
	}
	return nil, false, r.unexpected(c, a)
}

// nextReferrers returns the address of the next page, or nil after the last.
func (r *Registry) nextReferrers(c call, a *answer, visited map[string]struct{}) (*url.URL, error) {
	link, err := nextLink(a.header)
	if err != nil || link == "" {
		return nil, err
	}
	target, err := r.sameOrigin(a.url, link)
	if err != nil {
		return nil, fmt.Errorf("link to the next page: %w", err)
	}
	if target.Path != c.path {
		return nil, fmt.Errorf("link to the next page leads to %q", shorten(target.Path, 100))
	}
	if _, again := visited[target.RequestURI()]; again {
		return nil, errors.New("link to the next page leads back")
	}
	return target, nil
}

// parseReferrers takes nothing but an image index.
func parseReferrers(c call, a *answer) ([]Descriptor, error) {
	if err := whole(a, c.limit); err != nil {
		return nil, err
	}
	var index struct {
		Manifests *json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(a.body, &index); err != nil {
		return nil, fmt.Errorf("page is not an image index: %w", err)
	}
	if index.Manifests == nil {
		var keys map[string]json.RawMessage
		if err := json.Unmarshal(a.body, &keys); err != nil || keys["manifests"] == nil {
			return nil, errors.New(`page has no "manifests"`)
		}
		return nil, nil
	}
	var raw []struct {
		MediaType    string            `json:"mediaType"`
		Digest       string            `json:"digest"`
		Size         int64             `json:"size"`
		ArtifactType string            `json:"artifactType"`
		URLs         []string          `json:"urls"`
		Annotations  map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(*index.Manifests, &raw); err != nil {
		return nil, fmt.Errorf("page with descriptors that cannot be read: %w", err)
	}
	list := make([]Descriptor, 0, len(raw))
	for _, one := range raw {
		if err := validDigest(one.Digest); err != nil {
			return nil, err
		}
		list = append(list, Descriptor(one))
	}
	return list, nil
}
