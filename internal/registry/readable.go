package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// mostUnreadable bounds how many tags of a repository may be unreadable, beyond a tenth of them, before the registry
// rather than its content is taken to be in trouble.
const mostUnreadable = 8

// ListReadable is List for a registry whose content may be damaged: a tag that the registry lists and then cannot
// serve (5xx, or bytes that are not the manifest) is named as unreadable instead of failing the listing. Use it where
// such a tag is to be written anew, never to conclude that something is gone.
func (r *Registry) ListReadable(ctx context.Context, repository string) (all Listing, unreadable []string, err error) {
	names, present, err := r.TagNames(ctx, repository)
	if err != nil || !present {
		return Listing{}, nil, err
	}
	tags, _, unreadable, err := r.ResolveReadable(ctx, repository, names)
	if err != nil {
		return Listing{}, nil, err
	}
	return Listing{Present: true, Tags: tags}, unreadable, nil
}

// ResolveReadable is to Resolve what ListReadable is to List.
func (r *Registry) ResolveReadable(
	ctx context.Context, repository string, tags []string,
) (found []Tag, absent, unreadable []string, err error) {
	var mu sync.Mutex
	most := max(mostUnreadable, len(tags)/10)
	found, absent, err = r.resolveAll(ctx, repository, tags, r.resolve, func(tag string, err error) error {
		mu.Lock()
		defer mu.Unlock()
		if !damaged(err) || len(unreadable) == most {
			return err
		}
		unreadable = append(unreadable, tag)
		return nil
	})
	if err == nil && len(unreadable) > 0 {
		if err = r.Ping(ctx); err != nil {
			err = fmt.Errorf("%d tags of %s could not be read, nor anything else: %w", len(unreadable), repository, err)
		}
	}
	if err != nil {
		return nil, nil, nil, err
	}
	slices.Sort(unreadable)
	return found, absent, unreadable, nil
}

// damaged says whether an error can come from a manifest that is damaged in the registry's storage: CNCF distribution
// answers 500 for one that it cannot decode.
func damaged(err error) bool {
	failed, ours := errors.AsType[*Error](err)
	if !ours {
		return false
	}
	const internalError = 500
	return failed.Status == internalError || failed.Status == 200 && errors.Is(err, ErrMalformed)
}
