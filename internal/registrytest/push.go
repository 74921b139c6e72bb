package registrytest

import (
	"context"
	"testing"
	"time"
)

// Push uploads img to repository under tag ("" = by digest alone) and fails the test if it cannot.
func Push(t testing.TB, registryURL, repository, tag string, img Image) {
	t.Helper()
	if err := PushErr(t.Context(), registryURL, repository, tag, img); err != nil {
		t.Fatalf("push %s:%s: %v", repository, tag, err)
	}
}

// PushErr is [Push] for goroutines other than the test's own, which must not fail it.
func PushErr(ctx context.Context, registryURL, repository, tag string, img Image) error {
	c := NewClient(registryURL)
	defer c.Close()
	return c.Push(ctx, repository, tag, img)
}

// Retag points newTag at a manifest that the repository has.
func Retag(t testing.TB, registryURL, repository, digest, newTag string) {
	t.Helper()
	c := NewClient(registryURL)
	defer c.Close()
	if err := c.Retag(t.Context(), repository, digest, newTag); err != nil {
		t.Fatalf("retag %s@%s as %s: %v", repository, digest, newTag, err)
	}
}

// DeleteTag deletes one tag. Debian's docker-registry refuses that, and so fails the test.
func DeleteTag(t testing.TB, registryURL, repository, tag string) {
	t.Helper()
	remove(t, registryURL, repository, tag)
}

// DeleteDigest deletes a manifest by digest, and with it, on most registries, every tag on it.
func DeleteDigest(t testing.TB, registryURL, repository, digest string) {
	t.Helper()
	remove(t, registryURL, repository, digest)
}

func remove(t testing.TB, registryURL, repository, reference string) {
	t.Helper()
	c := NewClient(registryURL)
	defer c.Close()
	if err := c.Delete(t.Context(), repository, reference); err != nil {
		t.Fatalf("delete %s of %s: %v", reference, repository, err)
	}
}

// Tags lists the repository's tags with the digest of each; none where the repository is not there.
func Tags(t testing.TB, registryURL, repository string) map[string]string {
	t.Helper()
	c := NewClient(registryURL)
	defer c.Close()
	tags, err := c.Tags(t.Context(), repository)
	if err != nil {
		t.Fatalf("tags of %s: %v", repository, err)
	}
	return tags
}

// GetManifest reads a manifest by tag or digest; ok is false where the registry answers 404.
func GetManifest(t testing.TB, registryURL, repository, reference string) (m Manifest, ok bool) {
	t.Helper()
	c := NewClient(registryURL)
	defer c.Close()
	m, err := c.Manifest(t.Context(), repository, reference)
	if IsAbsent(err) {
		return Manifest{}, false
	}
	if err != nil {
		t.Fatalf("manifest %s of %s: %v", reference, repository, err)
	}
	return m, true
}

// Eventually asks check again until it returns nil, and fails the test with its last error after timeout. It is for
// conditions that no signal announces, such as the content of a registry; where there is a signal, wait for that.
func Eventually(t testing.TB, timeout time.Duration, check func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		// The error that the deadline itself causes says nothing about the condition.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not so after %s: %v", timeout, last)
		}
	}
}
