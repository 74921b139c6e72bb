package registrytest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// referrersTag is a tag that stands in for the referrers API (distribution specification v1.1, "Referrers Tag Schema").
var referrersTag = regexp.MustCompile(`^sha256-[0-9a-f]{64}$`)

// Referrers lists the digests of a manifest's referrers, sorted, and says whether the registry has the API for that.
// Where it has not, they are what the tag lists that stands in for it.
func (c *Client) Referrers(ctx context.Context, repository, digest string) (digests []string, api bool, err error) {
	resp, err := c.do(ctx, call{method: http.MethodGet, path: repository + "/referrers/" + digest}, http.StatusOK)
	var index document
	switch {
	case err == nil:
		defer drain(resp)
		err = json.NewDecoder(resp.Body).Decode(&index)
	case IsAbsent(err):
		var list Manifest
		if list, err = c.Manifest(ctx, repository, strings.Replace(digest, ":", "-", 1)); IsAbsent(err) {
			return nil, false, nil
		}
		if err == nil {
			err = json.Unmarshal(list.Bytes, &index)
		}
	}
	if err != nil {
		return nil, false, fmt.Errorf("referrers of %s@%s: %w", repository, digest, err)
	}
	for _, referrer := range index.Manifests {
		digests = append(digests, referrer.Digest)
	}
	slices.Sort(digests)
	return digests, resp != nil, nil
}

// referrersOf compares the referrers of a manifest, if the source lists them by its API: otherwise their list is a tag,
// and compared as such.
func (c *comparison) referrersOf(ctx context.Context, repository, digest string) error {
	source, api, err := c.source.Referrers(ctx, repository, digest)
	if err != nil || !api {
		return err
	}
	destination, _, err := c.destination.Referrers(ctx, repository, digest)
	if err != nil {
		return err
	}
	if !slices.Equal(source, destination) {
		c.differ("%s@%s: has the referrers %v at the source, %v at the destination", repository, digest, source, destination)
	}
	for _, referrer := range source {
		if err := c.manifest(ctx, repository, referrer, false); err != nil {
			return err
		}
	}
	return nil
}

// isList says whether a tag is a list of referrers for which the source has the API.
func (c *comparison) isList(ctx context.Context, repository, tag string) (bool, error) {
	if !c.referrers || !referrersTag.MatchString(tag) {
		return false, nil
	}
	_, api, err := c.source.Referrers(ctx, repository, strings.Replace(tag, "-", ":", 1))
	return api, err
}
