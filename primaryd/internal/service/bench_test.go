package service_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/client"
	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
	"github.com/antipode-registry/antipode/primaryd/internal/listing"
	"github.com/antipode-registry/antipode/primaryd/internal/service"
)

// BenchmarkDelivery has a thousand subscribers, each on a connection of its own under mutual TLS, and measures from the
// moment a change is handed to the feed to the moment each of them has it. Subscribers and primary share the machine.
//
//	go test ./primaryd/internal/service -run '^$' -bench Delivery -benchtime 20x
func BenchmarkDelivery(b *testing.B) {
	for name, open := range map[string]func(testing.TB) *database.DB{
		"sqlite": databasetest.OpenSQLite, "postgres": databasetest.OpenPostgres,
	} {
		b.Run(name, func(b *testing.B) {
			const subscribers = 1000
			p := newParts(b, open(b))
			arrived := make(chan arrival, subscribers)
			p.subscribers(b, subscribers, arrived)
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				took = append(took, p.deliver(b, i, subscribers, arrived)...)
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}

// arrival is a subscriber's having a revision, and why it has no more to come.
type arrival struct {
	at       time.Time
	revision int64
	err      error
}

// deliver makes one change and waits until all have it.
func (p *parts) deliver(b *testing.B, i, subscribers int, arrived <-chan arrival) []time.Duration {
	b.Helper()
	began := time.Now()
	head, err := p.feed.Append(b.Context(), feed.Change{Repository: fmt.Sprint("r", i), Tags: []feed.Touch{{Tag: "v1"}}})
	if err != nil {
		b.Fatal(err)
	}
	took := make([]time.Duration, 0, subscribers)
	for range subscribers {
		a := <-arrived
		if a.err != nil || a.revision != head {
			b.Fatalf("arrived at %d of %d: %v", a.revision, head, a.err)
		}
		took = append(took, a.at.Sub(began))
	}
	return took
}

// subscribers serves the feed and subscribes to it that many times; it returns once all streams have begun.
func (p *parts) subscribers(b *testing.B, count int, arrived chan arrival) {
	b.Helper()
	address, files := p.serveLink(b, count)
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	var following sync.WaitGroup
	b.Cleanup(func() {
		cancel()
		following.Wait()
	})
	begun := make(chan struct{}, count)
	for i := range count {
		c, err := client.Dial(files.config(address, callerName(i)))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Close() })
		following.Go(func() {
			for event, err := range c.Subscribe(ctx, "", client.Position{}) {
				switch {
				case ctx.Err() != nil:
					return
				case err != nil:
					arrived <- arrival{err: err}
				case len(event.Changes) == 0 && event.Cursor == 0:
					begun <- struct{}{}
				case len(event.Changes) > 0:
					arrived <- arrival{at: time.Now(), revision: event.Cursor}
				}
			}
		})
		<-begun
	}
}

// pki are the files of operators who may call the server.
type pki struct{ dir string }

func (f pki) config(address, name string) client.Config {
	return client.Config{
		Address: address, CertFile: filepath.Join(f.dir, name+".crt"), KeyFile: filepath.Join(f.dir, name+".key"),
		CAFile: filepath.Join(f.dir, "ca.crt"),
	}
}

// subscribersOfOneName stays below what one name may have of connections.
const subscribersOfOneName = 25

// callerName is the name that the i-th subscriber calls under.
func callerName(i int) string { return fmt.Sprint("ops-", i/subscribersOfOneName) }

// serveLink serves the feed as primaryd does, to so many subscribers.
func (p *parts) serveLink(b *testing.B, subscribers int) (address string, files pki) {
	b.Helper()
	files = pki{dir: filepath.Join(b.TempDir(), "pki")}
	for _, err := range []error{
		authority.Init(files.dir), authority.Issue(files.dir, "primary", link.RolePrimary, nil),
	} {
		if err != nil {
			b.Fatal(err)
		}
	}
	var operators []string
	for i := 0; i < subscribers; i += subscribersOfOneName {
		operators = append(operators, callerName(i))
		if err := authority.Issue(files.dir, callerName(i), link.RoleOperator, nil); err != nil {
			b.Fatal(err)
		}
	}
	p.access.Operators.Replace(operators...)
	server, err := link.Listen(link.ServerConfig{
		Listen: "127.0.0.1:0", CertFile: filepath.Join(files.dir, "primary.crt"),
		KeyFile: filepath.Join(files.dir, "primary.key"), ClientCAFile: filepath.Join(files.dir, "ca.crt"),
		Authorize: p.access.Authorize, MapError: service.MapError, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	antipodev1.RegisterFeedServiceServer(server.GRPC(), service.NewFeedService(
		p.access, p.feed, listing.New(p.registry, p.feed),
		service.FeedOptions{Heartbeat: 10 * time.Minute, Stopping: server.Stopping()}))
	ctx, stop := context.WithCancel(context.WithoutCancel(b.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = server.Run(ctx) })
	b.Cleanup(func() {
		stop()
		running.Wait()
	})
	return server.Addr().String(), files
}
