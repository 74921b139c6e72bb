package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// equal compares two registries: tags, manifests and blobs and, where they have the referrers API, what it lists for
// each tag's manifest. Its error has every difference.
func equal(ctx context.Context, sourceURL, destinationURL string, referrersAPI bool) error {
	source, destination := registrytest.NewClient(sourceURL), registrytest.NewClient(destinationURL)
	defer source.Close()
	defer destination.Close()
	wanted, err := source.Repositories(ctx)
	if err != nil {
		return err
	}
	found, err := destination.Repositories(ctx)
	if err != nil {
		return err
	}
	all := append(wanted, found...)
	slices.Sort(all)
	all = slices.Compact(all)
	var mu sync.Mutex
	var differences []error
	err = parallel(ctx, len(all), func(ctx context.Context, i int) error {
		err := registrytest.Equal(ctx, sourceURL, destinationURL, all[i])
		if err == nil && referrersAPI {
			err = sameReferrers(ctx, source, sourceURL, destinationURL, all[i])
		}
		mu.Lock()
		defer mu.Unlock()
		differences = append(differences, err)
		return nil
	})
	return errors.Join(append(differences, err)...)
}

// sameReferrers compares what both sides list for the repository's tags, and that it is there.
func sameReferrers(ctx context.Context, source *registrytest.Client, sourceURL, destinationURL, repository string) error {
	tags, err := source.Tags(ctx, repository)
	if err != nil {
		return err
	}
	to := registrytest.NewClient(destinationURL)
	defer to.Close()
	for tag, digest := range tags {
		wanted, err := referrersOf(ctx, sourceURL, repository, digest)
		if err != nil {
			return err
		}
		found, err := referrersOf(ctx, destinationURL, repository, digest)
		if err != nil {
			return err
		}
		if !slices.Equal(wanted, found) {
			return fmt.Errorf("%s:%s: %d referrers at the source, %d at the destination", repository, tag, len(wanted), len(found))
		}
		for _, referrer := range wanted {
			if _, err := to.Manifest(ctx, repository, referrer); err != nil {
				return fmt.Errorf("%s@%s: %w", repository, referrer, err)
			}
		}
	}
	return nil
}

// referrersOf asks the referrers API; it returns the digests in order.
func referrersOf(ctx context.Context, registryURL, repository, digest string) ([]string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, registryURL+"/v2/"+repository+"/referrers/"+digest, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer drain(resp)
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("referrers of %s@%s: %s", repository, digest, resp.Status)
	}
	var index struct{ Manifests []struct{ Digest string } }
	if err := json.NewDecoder(resp.Body).Decode(&index); err != nil {
		return nil, err
	}
	var digests []string
	for _, entry := range index.Manifests {
		digests = append(digests, entry.Digest)
	}
	slices.Sort(digests)
	return digests, nil
}
