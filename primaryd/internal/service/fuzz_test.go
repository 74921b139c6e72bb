package service

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/antipode-registry/antipode/internal/registry"
)

// FuzzPage: a token that is taken is the one that is made of where it leads to, and that is a repository; all others, and
// sizes of no page, are the caller's mistake.
func FuzzPage(f *testing.F) {
	for _, token := range []string{"", "after:team/app", "after:", "after:A", "after:a/../b", "after: a", "before:a", "after:after:a"} {
		f.Add(int32(100), token)
	}
	f.Add(int32(-1), "after:a")
	f.Add(int32(1<<31-1), "after:\x00")
	f.Fuzz(func(t *testing.T, size int32, token string) {
		limit, after, err := page(size, token)
		if err != nil {
			if status.Code(err) != codes.InvalidArgument || limit != 0 || after != "" {
				t.Fatalf("%d, %q, %v", limit, after, err)
			}
			return
		}
		if limit < 1 || limit > 1000 || size > 0 && limit > int(size) {
			t.Fatalf("a page of %d for %d", limit, size)
		}
		if token == "" && after == "" {
			return
		}
		if again := nextToken(after); again != token || registry.ValidRepository(after) != nil {
			t.Fatalf("%q leads to %q, of which %q is made", token, after, again)
		}
	})
}
