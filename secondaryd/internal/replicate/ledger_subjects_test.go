package replicate_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/antipode-registry/antipode/client"
	"github.com/antipode-registry/antipode/internal/registry"
)

// answer puts the listing together, referrers included.
func (l *ledger) answer(
	ctx context.Context, repository string, row ledgerRow, listing client.Listing, tags map[string]registry.Tag,
	pushed []string, first ...registry.Descriptor,
) (client.Listing, error) {
	listing.RegistryURL, listing.Revision = l.url, row.revision
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		tag := tags[name]
		listing.Tags = append(listing.Tags, client.Tag(tag))
		first = append(first, registry.Descriptor{Digest: tag.Digest, MediaType: tag.MediaType})
	}
	l.mu.Lock()
	api := l.api
	l.mu.Unlock()
	if api == apiAbsent {
		return listing, nil
	}
	subjects, known, err := l.subjects(ctx, repository, first, pushed)
	if err != nil {
		return listing, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if known != apiUnknown {
		l.api = known
	}
	if listing.ReferrersAPI = l.api == apiPresent; !listing.ReferrersAPI {
		return listing, nil
	}
	for _, digest := range slices.Sorted(maps.Keys(subjects)) {
		if len(subjects[digest]) > 0 || !listing.Complete {
			listing.Subjects = append(listing.Subjects, client.Subject{Digest: digest, Referrers: subjects[digest]})
		}
	}
	return listing, nil
}

// subjects walks from manifests to their referrers and children.
func (l *ledger) subjects(
	ctx context.Context, repository string, next []registry.Descriptor, pushed []string,
) (map[string][]client.Referrer, knowledge, error) {
	for _, digest := range pushed {
		m, err := l.source.Manifest(ctx, repository, digest)
		if errors.Is(err, registry.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, apiUnknown, err
		}
		var body struct {
			Subject *registry.Descriptor `json:"subject"`
		}
		if json.Unmarshal(m.Bytes, &body) == nil && body.Subject != nil {
			next = append(next, *body.Subject)
		}
	}
	subjects := map[string][]client.Referrer{}
	for len(next) > 0 {
		m := next[len(next)-1]
		next = next[:len(next)-1]
		if _, seen := subjects[m.Digest]; seen {
			continue
		}
		found, supported, err := l.source.Referrers(ctx, repository, m.Digest)
		if err != nil {
			return nil, apiUnknown, err
		}
		if !supported {
			return nil, apiAbsent, nil
		}
		subjects[m.Digest] = []client.Referrer{}
		for _, r := range found {
			subjects[m.Digest] = append(subjects[m.Digest], client.Referrer{
				Digest: r.Digest, MediaType: r.MediaType, Size: r.Size, ArtifactType: r.ArtifactType, Annotations: r.Annotations,
			})
		}
		children, err := l.children(ctx, repository, m)
		if err != nil {
			return nil, apiUnknown, err
		}
		next = append(append(next, found...), children...)
	}
	if len(subjects) == 0 {
		return subjects, apiUnknown, nil
	}
	return subjects, apiPresent, nil
}

// children returns the manifests that an index lists.
func (l *ledger) children(
	ctx context.Context, repository string, m registry.Descriptor,
) ([]registry.Descriptor, error) {
	if !strings.Contains(m.MediaType, "image.index") && !strings.Contains(m.MediaType, "manifest.list") {
		return nil, nil
	}
	body, err := l.source.Manifest(ctx, repository, m.Digest)
	if errors.Is(err, registry.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var index struct {
		Manifests []registry.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(body.Bytes, &index); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(index.Manifests, func(d registry.Descriptor) bool {
		return !strings.Contains(d.MediaType, "manifest") && !strings.Contains(d.MediaType, "image.index")
	}), nil
}
