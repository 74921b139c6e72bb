package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// The stream of changes that goes on while things are killed. A repository stays below the brake's count of tags.
const (
	streamSeed         = 20261123
	streamRepositories = 5
	streamTags         = 8
	streamChanges      = 160
	changesPerKill     = 12
)

// TestKilled kills each of the four processes again and again, at moments that the seed decides, while images are pushed,
// retagged and deleted. Nothing that the primary has may be missing afterwards, and nothing may be left that it has not.
func TestKilled(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, site option) {
		p := newPair(t, site, withPrimaryConfig("sweep.interval", "2s"), withSecondaryConfig("sweep.interval", "5s"))
		stream := startStream(t, p.Registry.URL())
		random := rand.New(rand.NewPCG(streamSeed, 1))
		victims := []victim{p.Primary, p.Secondary, p.Registry, p.Site}
		for kill, open := 0, true; open; kill++ {
			for range 1 + random.IntN(changesPerKill) {
				if _, open = <-stream.done; !open {
					break
				}
			}
			v := victims[random.IntN(len(victims))]
			v.Kill()
			// The primary's registry must come back for the stream to go on; the others miss a part of it.
			if v != victim(p.Registry) {
				for range random.IntN(changesPerKill) {
					<-stream.done
				}
			}
			v.Start()
		}
		if stream.err != nil {
			t.Fatal(stream.err)
		}
		p.Converges(t)
		stream.check(t, p)
	})
}

// victim is what can be killed; both kinds of processes are.
type victim interface {
	Kill()
	Start()
}

// stream changes the primary's registry from a goroutine of its own, one change after the other.
type stream struct {
	client *registrytest.Client
	random *rand.Rand
	want   map[string]map[string]string // by repository, tag: the digest
	done   chan struct{}                // one for each change; closed after the last
	err    error                        // valid once done is closed
}

func startStream(t *testing.T, url string) *stream {
	t.Helper()
	s := &stream{
		client: registrytest.NewClient(url), random: rand.New(rand.NewPCG(streamSeed, 2)),
		want: map[string]map[string]string{}, done: make(chan struct{}, streamChanges),
	}
	go func() {
		defer s.client.Close()
		defer close(s.done)
		for i := range streamChanges {
			if s.err = s.change(t.Context(), i); s.err != nil {
				return
			}
			s.done <- struct{}{}
		}
	}()
	return s
}

// change makes one change, and repeats it until the registry, which may be dead, has confirmed it.
func (s *stream) change(ctx context.Context, i int) error {
	repository := fmt.Sprintf("stream/app-%d", s.random.IntN(streamRepositories))
	tag := fmt.Sprintf("v%d", s.random.IntN(streamTags))
	tags := s.want[repository]
	if tags == nil {
		tags = map[string]string{}
		s.want[repository] = tags
	}
	kind, all := s.random.IntN(10), slices.Sorted(maps.Values(tags))
	switch {
	case kind < 2 && tags[tag] != "":
		delete(tags, tag)
		return s.until(ctx, func() error {
			if err := s.client.Delete(ctx, repository, tag); !registrytest.IsAbsent(err) {
				return err
			}
			return nil // an attempt whose answer was lost has done it
		})
	case kind < 5 && len(all) > 0:
		digest := all[s.random.IntN(len(all))]
		tags[tag] = digest
		return s.until(ctx, func() error { return s.client.Retag(ctx, repository, digest, tag) })
	}
	img := registrytest.NewImage(int64(i), 2, 30_000)
	if kind == 9 {
		img = registrytest.NewIndex(img, registrytest.NewImage(int64(10_000+i), 1, 1000))
	}
	tags[tag] = img.Digest
	return s.until(ctx, func() error { return s.client.Push(ctx, repository, tag, img) })
}

func (s *stream) until(ctx context.Context, do func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := do()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// check compares the site with what the stream knows: that the registries are equal would be true of empty ones too.
func (s *stream) check(t *testing.T, p *pair) {
	t.Helper()
	for repository, tags := range s.want {
		tagsAre(t, p, repository, tags)
	}
}
