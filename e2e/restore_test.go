package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/registrytest"
)

// vault is a daemon's database with a copy of how it was yesterday. The daemon must not run while it is used.
type vault struct {
	t           *testing.T
	file        string // SQLite's
	server, url string // Postgres'
	yesterday   string // the copy: a file or a URL
}

// eachVault runs fn with a pair whose daemon, primaryd or secondaryd, has its database on either engine.
func eachVault(t *testing.T, name string, with func(key string, value any) option, fn func(*testing.T, *pair, *vault)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		p := newPair(t, withSiteProxy())
		file := filepath.Join(p.dir, name)
		fn(t, p, &vault{t: t, file: file, yesterday: file + ".yesterday"})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		databasetest.SkipWithoutPostgres(t)
		v := &vault{t: t, server: databasetest.Server(t)}
		v.url = databasetest.NewDatabase(t, v.server)
		fn(t, newPair(t, withSiteProxy(), with("database", v.url)), v)
	})
}

// Save keeps how the database is now.
func (v *vault) Save() {
	v.t.Helper()
	if v.url != "" {
		v.yesterday = databasetest.Snapshot(v.t, v.server, v.url)
		return
	}
	v.copy(v.file, v.yesterday)
}

// Restore puts back what was saved.
func (v *vault) Restore() {
	v.t.Helper()
	if v.url != "" {
		databasetest.Restore(v.t, v.server, v.url, v.yesterday)
		return
	}
	v.copy(v.yesterday, v.file)
}

// Lose leaves nothing.
func (v *vault) Lose() {
	v.t.Helper()
	if v.url != "" {
		databasetest.Restore(v.t, v.server, v.url, "")
		return
	}
	if err := os.Remove(v.file); err != nil {
		v.t.Fatal(err)
	}
}

// copy copies the file of a daemon that was stopped: what it wrote last is in it, and no log is beside it.
func (v *vault) copy(from, to string) {
	v.t.Helper()
	if _, err := os.Stat(v.file + "-wal"); !errors.Is(err, fs.ErrNotExist) {
		v.t.Fatalf("the stopped daemon left a log: %v", err)
	}
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o600)
	}
	if err != nil {
		v.t.Fatal(err)
	}
}

// yesterday and today are what happens at the primary before and after the copy of a database is made.
func yesterday(t *testing.T, p *pair) {
	t.Helper()
	for i := range 3 {
		for k := range 3 {
			push(t, p, fmt.Sprintf("old/app-%d", i), fmt.Sprintf("v%d", k), image(int64(10*i+k)))
		}
	}
	p.Converges(t)
}

func today(t *testing.T, p *pair) {
	t.Helper()
	url := p.Registry.URL()
	registrytest.Retag(t, url, "old/app-0", image(1).Digest, "v0")
	registrytest.DeleteTag(t, url, "old/app-1", "v2")
	for i := range 6 {
		push(t, p, fmt.Sprintf("new/app-%d", i), "v0", registrytest.NewIndex(image(int64(100+i)), image(int64(200+i))))
		push(t, p, "old/app-2", fmt.Sprintf("v%d", 3+i), image(int64(300+i)))
	}
	p.Converges(t)
}

// TestPrimaryDatabaseRestored puts yesterday's copy of primaryd's database back, and then loses all of it. The site reads
// the feed from its beginning and compares; nothing of it is removed on the way, and what happened while primaryd was
// away arrives.
func TestPrimaryDatabaseRestored(t *testing.T) {
	t.Parallel()
	eachVault(t, "primary.db", withPrimaryConfig, func(t *testing.T, p *pair, v *vault) {
		yesterday(t, p)
		p.Primary.Stop()
		v.Save()
		p.Primary.Start()
		today(t, p)
		for i, disaster := range []func(){v.Restore, v.Lose} {
			p.Primary.Stop()
			disaster()
			p.SiteProxy.Reset()
			img := image(int64(400 + i))
			push(t, p, "old/app-2", "away", img)
			p.Primary.Start()
			arrives(t, p, "old/app-2", "away", img.Digest)
			p.Converges(t)
			removedNothing(t, p)
		}
		registrytest.DeleteTag(t, p.Registry.URL(), "old/app-0", "v2")
		leaves(t, p, "old/app-0", "v2")
		p.Converges(t)
	})
}

// TestSiteDatabaseRestored does the same to a site's database: all that is there is compared, and not copied again.
func TestSiteDatabaseRestored(t *testing.T) {
	t.Parallel()
	eachVault(t, "secondary.db", withSecondaryConfig, func(t *testing.T, p *pair, v *vault) {
		yesterday(t, p)
		p.Secondary.Stop()
		v.Save()
		p.Secondary.Start()
		today(t, p)
		for _, disaster := range []func(){v.Restore, v.Lose} {
			p.Secondary.Stop()
			disaster()
			p.SiteProxy.Reset()
			p.Secondary.Start()
			p.Converges(t)
			removedNothing(t, p)
			if copied := p.SiteProxy.Count(http.MethodPost, "upload"); copied > 0 {
				t.Errorf("%d blobs were copied again", copied)
			}
		}
		registrytest.DeleteTag(t, p.Registry.URL(), "old/app-0", "v2")
		leaves(t, p, "old/app-0", "v2")
		p.Converges(t)
	})
}

// TestRestoredPrimaryOvertakes is the nasty case: yesterday's database has counted beyond a site's cursor by the time that
// the site asks again. Its changes have numbers that the site believes to have seen.
func TestRestoredPrimaryOvertakes(t *testing.T) {
	t.Parallel()
	eachVault(t, "primary.db", withPrimaryConfig, func(t *testing.T, p *pair, v *vault) {
		yesterday(t, p)
		p.Primary.Stop()
		v.Save()
		p.Primary.Start()
		today(t, p)
		p.Secondary.Stop()
		p.Primary.Stop()
		v.Restore()
		p.SiteProxy.Reset()
		p.Primary.Start()
		head := p.head(t)
		for i := range 40 {
			push(t, p, fmt.Sprintf("since/app-%d", i), "v0", image(int64(500+i)))
		}
		eventually(t, func(context.Context) error {
			if now := p.head(t); now < head+40 {
				return fmt.Errorf("the head is %d after %d", now, head)
			}
			return nil
		})
		p.Secondary.Start()
		p.Converges(t)
		removedNothing(t, p)
	})
}

// removedNothing fails the test if anything was removed from the site since the proxy was last reset.
func removedNothing(t *testing.T, p *pair) {
	t.Helper()
	for _, r := range p.SiteProxy.Requests() {
		if r.Method == http.MethodDelete {
			t.Errorf("%s %s", r.Method, r.Path)
		}
	}
}

// head is the newest revision of the primary's feed.
func (p *pair) head(t testing.TB) int64 {
	t.Helper()
	list, err := p.Nodes().ListNodes(t.Context(), &antipodev1.ListNodesRequest{}, patiently)
	if err != nil {
		t.Fatal(err)
	}
	return list.GetHeadRevision()
}
