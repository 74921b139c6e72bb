package cli

import (
	"fmt"
	"strings"
)

// Image splits REPOSITORY:TAG or REPOSITORY@DIGEST. What it refuses is a mistake in the command line.
func Image(name string) (repository, reference string, err error) {
	if repository, digest, found := strings.Cut(name, "@"); found && repository != "" && digest != "" {
		return repository, digest, nil
	}
	if repository, tag, found := strings.Cut(name, ":"); found && repository != "" && tag != "" {
		return repository, tag, nil
	}
	return "", "", usageError{fmt.Errorf("expected REPOSITORY:TAG or REPOSITORY@DIGEST, got %q", name)}
}
