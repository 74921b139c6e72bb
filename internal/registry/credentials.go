package registry

import (
	"context"
	"fmt"

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
