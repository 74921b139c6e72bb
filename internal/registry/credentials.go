package registry

import (
	"context"
	"fmt"
	"sync"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

// checkCredentials refuses a docker configuration that cannot be read, so that it is found at the start and not by the
// first refused request. A missing one is no error: the registry may be open to all.
func checkCredentials() error {
	if _, err := credentials.NewStoreFromDocker(credentials.StoreOptions{}); err != nil {
		return fmt.Errorf("docker configuration: %w", err)
	}
	return nil
}

// credential looks host up in the docker configuration. The authorization client calls it only after a 401, so the file
// is simply read each time: that is rare, and the newest login is always the one used.
func credential(ctx context.Context, host string) (auth.Credential, error) {
	store, err := credentials.NewStoreFromDocker(credentials.StoreOptions{})
	if err != nil {
		return auth.EmptyCredential, fmt.Errorf("docker configuration: %w", err)
	}
	found, err := credentials.Credential(store)(ctx, host)
	if err != nil {
		return auth.EmptyCredential, fmt.Errorf("docker configuration: credentials for %s: %w", host, err)
	}
	return found, nil
}

// maxTokens is how many tokens are kept before all are forgotten. There is one for each repository and kind of access,
// some kilobytes each, and a registry may have many thousand repositories.
const maxTokens = 1000

// tokenCache is oras's cache with a bound.
type tokenCache struct {
	mu      sync.Mutex
	current auth.Cache
	tokens  int
}

func newTokenCache() *tokenCache { return &tokenCache{current: auth.NewCache()} }

func (c *tokenCache) cache() auth.Cache {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current
}

// GetScheme implements auth.Cache.
func (c *tokenCache) GetScheme(ctx context.Context, registry string) (auth.Scheme, error) {
	return c.cache().GetScheme(ctx, registry)
}

// GetToken implements auth.Cache.
func (c *tokenCache) GetToken(ctx context.Context, registry string, scheme auth.Scheme, key string) (string, error) {
	return c.cache().GetToken(ctx, registry, scheme, key)
}

// Set implements auth.Cache.
func (c *tokenCache) Set(
	ctx context.Context, registry string, scheme auth.Scheme, key string,
	fetch func(context.Context) (string, error),
) (string, error) {
	c.mu.Lock()
	if c.tokens++; c.tokens > maxTokens {
		c.current, c.tokens = auth.NewCache(), 1
	}
	current := c.current
	c.mu.Unlock()
	return current.Set(ctx, registry, scheme, key, fetch)
}
