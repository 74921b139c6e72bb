package registry

import (
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

func TestAProbeIsWrittenReadAndDeleted(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(testing.TB, ...registrytest.Option) *registrytest.Process{
		"distribution": registrytest.Distribution, "docker-registry": registrytest.Debian,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := open(t, start(t).URL())
			for range 2 { // a second one beside what is left of a first is no trouble
				digest, err := r.PutProbe(t.Context(), "antipode/doctor", "probe")
				if err != nil {
					t.Fatal(err)
				}
				found, _, err := r.Resolve(t.Context(), "antipode/doctor", []string{"probe"})
				if err != nil || len(found) != 1 || found[0].Digest != digest {
					t.Fatalf("%v, %v, want %s", found, err, digest)
				}
			}
			if err := r.DeleteTag(t.Context(), "antipode/doctor", "probe"); err != nil {
				t.Fatal(err)
			}
			if found, _, err := r.Resolve(t.Context(), "antipode/doctor", []string{"probe"}); err != nil || len(found) != 0 {
				t.Errorf("%v, %v", found, err)
			}
			if at, err := r.Clock(t.Context()); err != nil || time.Since(at).Abs() > time.Minute {
				t.Errorf("its clock: %v, %v", at, err)
			}
		})
	}
}
