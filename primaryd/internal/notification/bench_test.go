package notification_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
	"github.com/antipode-registry/antipode/primaryd/internal/notification"
)

// BenchmarkNotifications posts notifications of one event each over 64 connections, to the answer that its change is
// durable.
//
//	go test ./primaryd/internal/notification -run '^$' -bench Notifications -benchtime 1x
func BenchmarkNotifications(b *testing.B) {
	for name, open := range map[string]func(testing.TB) *database.DB{
		"sqlite": databasetest.OpenSQLite, "postgres": databasetest.OpenPostgres,
	} {
		b.Run(name, func(b *testing.B) {
			f, err := feed.Open(b.Context(), open(b), feed.Options{})
			if err != nil {
				b.Fatal(err)
			}
			ctx, stop := context.WithCancel(b.Context())
			var running sync.WaitGroup
			running.Go(func() { _ = f.Run(ctx) })
			defer running.Wait()
			defer stop()
			server := httptest.NewServer(notification.NewHandler(notification.Options{
				Appender: f, Secret: func() ([]byte, error) { return []byte(secret), nil },
			}))
			defer server.Close()
			flood(b, server.URL)
		})
	}
}

func flood(b *testing.B, url string) {
	b.Helper()
	const connections, each = 64, 200
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
	defer client.CloseIdleConnections()
	for b.Loop() {
		took := make([]time.Duration, connections*each)
		var sending sync.WaitGroup
		var failed atomic.Pointer[error]
		began := time.Now()
		for c := range connections {
			sending.Go(func() {
				for i := range each {
					at := time.Now()
					if err := notify(b.Context(), client, url, fmt.Sprintf("team/service-%d", c*each+i)); err != nil {
						failed.Store(&err)
						return
					}
					took[c*each+i] = time.Since(at)
				}
			})
		}
		sending.Wait()
		if err := failed.Load(); err != nil {
			b.Fatal(*err)
		}
		slices.Sort(took)
		b.ReportMetric(float64(len(took))/time.Since(began).Seconds(), "events/s")
		b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	}
}

func notify(ctx context.Context, client *http.Client, url, repository string) error {
	body := strings.NewReader(`{"events":[{"action":"push","target":{"repository":"` + repository + `","tag":"v1"}}]}`)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+secret)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %s", resp.Status)
	}
	return nil
}
