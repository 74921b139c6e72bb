package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/registrytest"
)

// TestReplicas takes a fleet through what happens to a repository, and then kills the primaryd that the site listens to:
// another has the change that is pushed at that moment, and the site hears of it there.
func TestReplicas(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	for name, test := range map[string]func(*testing.T, *pair){
		"push": followPush, "retag": followRetag, "delete tag": followDeleteTag, "delete digest": followDeleteDigest,
		"index": followIndex,
	} {
		t.Run(name, func(t *testing.T) { test(t, f.pair) })
	}
	f.Equal(t)
	for i := range 2 * replicas {
		victim := f.serving(t)
		victim.Kill()
		killed, img := time.Now(), image(int64(900+i))
		push(t, f.pair, "team/moved", fmt.Sprintf("v%d", i), img)
		arrives(t, f.pair, "team/moved", fmt.Sprintf("v%d", i), img.Digest)
		t.Logf("pushed after the kill of the primaryd that served the site: on the site %s after the kill", time.Since(killed))
		victim.Start()
	}
	f.Converges(t)
}

// TestReplicasKilled kills each process of a fleet again and again while images are pushed, retagged and deleted.
func TestReplicasKilled(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	stream := startStream(t, f.Registry.URL())
	random := rand.New(rand.NewPCG(streamSeed, 3))
	all := f.all()
	for kill, open := 0, true; open; kill++ {
		v := all[kill%len(all)]
		v.Kill()
		for range 1 + random.IntN(changesPerKill) {
			if _, open = <-stream.done; !open {
				break
			}
		}
		v.Start()
	}
	if stream.err != nil {
		t.Fatal(stream.err)
	}
	f.Converges(t)
	stream.check(t, f.pair)
}

// TestReplicasFrozen freezes one process after the other in the middle of its work, and lets it wake when another has
// long taken over: it finds that it is no longer its turn, and breaks nothing.
func TestReplicasFrozen(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	for i, frozen := range f.all() {
		name := fmt.Sprintf("frozen/app-%d", i)
		push(t, f.pair, name, "before", image(int64(10*i)))
		frozen.Freeze()
		began := time.Now()
		for k := range 4 {
			push(t, f.pair, name, fmt.Sprintf("v%d", k), image(int64(10*i+k)))
		}
		registrytest.DeleteTag(t, f.Registry.URL(), name, "v1")
		f.settles(t, name)
		t.Logf("with %s frozen, all is on the site after %s", frozen.dir[strings.LastIndexByte(frozen.dir, '/')+1:], time.Since(began))
		frozen.Thaw()
		push(t, f.pair, name, "v0", image(int64(10*i+7)))
		f.Converges(t)
	}
}

// settles waits until both registries hold the same of a repository.
func (p *pair) settles(t testing.TB, repository string) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		return registrytest.Equal(ctx, p.Registry.URL(), p.Site.URL(), repository)
	})
}

// TestDatabaseRestarts stops the server under a fleet in the middle of pushes. Nobody is ready meanwhile, notifications are
// answered 503 so that the registry keeps them, and all come back by themselves, without a change lost: sweeps, which
// could make up for one, wait an hour.
func TestDatabaseRestarts(t *testing.T) {
	t.Parallel()
	databasetest.SkipWithoutPostgres(t)
	cluster := databasetest.NewCluster(t)
	server := cluster.URL("postgres")
	f := newFleetOn(t, databasetest.NewDatabase(t, server), databasetest.NewDatabase(t, server))
	stream := startStream(t, f.Registry.URL())
	for range streamChanges / 4 {
		<-stream.done
	}
	cluster.Stop(t)
	f.unready(t)
	for range streamChanges / 4 {
		<-stream.done
	}
	eventually(t, func(context.Context) error { return f.refused() })
	cluster.Start(t)
	for range stream.done { //nolint:revive // to its end
	}
	if stream.err != nil {
		t.Fatal(stream.err)
	}
	f.Converges(t)
	stream.check(t, f.pair)
	for _, d := range f.all() {
		if err := d.running.awaitReady(t.Context()); err != nil {
			t.Errorf("%s: %v", d.dir, err)
		}
	}
}

// unready waits until every process says that it is not ready, and still serves.
func (f *fleet) unready(t testing.TB) {
	t.Helper()
	for _, d := range f.all() {
		eventually(t, func(ctx context.Context) error {
			ready, _, err := httpGet(ctx, d.URL()+"/readyz")
			if err == nil && ready != http.StatusServiceUnavailable {
				err = fmt.Errorf("%s answers /readyz with %d", d.dir, ready)
			}
			return err
		})
		if alive, _, err := httpGet(t.Context(), d.URL()+"/healthz"); err != nil || alive != http.StatusOK {
			t.Errorf("%s: /healthz %d %v", d.dir, alive, err)
		}
	}
}

// refused says whether the registry was answered 503.
func (f *fleet) refused() error {
	requests := f.Hook.Requests()
	for _, r := range requests {
		if r.Status == http.StatusServiceUnavailable {
			return nil
		}
	}
	return fmt.Errorf("none of %d notifications was answered 503", len(requests))
}
