package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/antipode-registry/antipode/internal/database/databasetest"
)

// replicas is how many processes of each daemon a fleet has.
const replicas = 2

// fleet is a pair in its replicated form: several processes of each daemon share a Postgres database per kind, and stand
// behind balancers. What a pair can do, it can.
type fleet struct {
	*pair

	Primaries, Secondaries []*daemon
}

// newFleet starts a fleet on a Postgres server of the tests' own, or on the one that DATABASE_URL names, and returns once
// all its processes are ready.
func newFleet(t testing.TB) *fleet {
	t.Helper()
	databasetest.SkipWithoutPostgres(t)
	server := databasetest.Server(t)
	return newFleetOn(t, databasetest.NewDatabase(t, server), databasetest.NewDatabase(t, server))
}

// newFleetOn starts a fleet on these databases.
func newFleetOn(t testing.TB, primary, secondary string, opts ...option) *fleet {
	t.Helper()
	o := gather(opts)
	httpAddress, grpcAddress, siteAddress := reserve(t), reserve(t), reserve(t)
	f := &fleet{pair: newRegistries(t, &o, httpAddress)}
	primaries, primaryProbes := f.add(&f.Primaries, "primaryd", func(http, grpc string) map[string]any {
		config := f.primaryConfig(&o, http, grpc)
		config["database"] = primary
		return config
	})
	secondaries, _ := f.add(&f.Secondaries, "secondaryd", func(http, grpc string) map[string]any {
		config := f.secondaryConfig(&o, grpcAddress)
		config["database"] = secondary
		set(config, "http.listen", http)
		set(config, "grpc.listen", grpc)
		return config
	})
	newBalancer(t, httpAddress, primaryProbes...)
	f.nodesAt = newBalancer(t, grpcAddress, primaries...).Address
	f.siteAt = newBalancer(t, siteAddress, secondaries...).Address
	for _, d := range f.all() {
		d.Start()
	}
	return f
}

// add makes the replicas of a daemon, each in a folder and on ports of its own, and how balancers reach its services and
// its HTTP.
func (f *fleet) add(
	to *[]*daemon, name string, config func(http, grpc string) map[string]any,
) (services, pages []*backend) {
	f.t.Helper()
	for i := range replicas {
		dir := filepath.Join(f.dir, fmt.Sprintf("%s-%d", name, i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			f.t.Fatal(err)
		}
		http, grpc := reserve(f.t), reserve(f.t)
		*to = append(*to, newDaemon(f.t, name, dir, config(http, grpc)))
		probe := "http://" + http + "/readyz"
		services = append(services, &backend{address: grpc, probe: probe})
		pages = append(pages, &backend{address: http, probe: probe})
	}
	return services, pages
}

// all is every process, the primary's first.
func (f *fleet) all() []*daemon { return append(append([]*daemon{}, f.Primaries...), f.Secondaries...) }

// serving is the primaryd that has the site's subscription.
func (f *fleet) serving(t testing.TB) *daemon {
	t.Helper()
	var found *daemon
	eventually(t, func(ctx context.Context) error {
		found = nil
		for _, d := range f.Primaries {
			streams, err := metric(ctx, d, "antipode_feed_subscribers")
			if err != nil {
				return err
			}
			if streams > 0 {
				found = d
			}
		}
		if found == nil {
			return fmt.Errorf("no primaryd has a subscriber")
		}
		return nil
	})
	return found
}

// metric reads one number of what a daemon serves at /metrics; a series with labels is named as it is printed.
func metric(ctx context.Context, d *daemon, series string) (float64, error) {
	_, text, err := httpGet(ctx, d.URL()+"/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if value, found := strings.CutPrefix(line, series+" "); found {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("%s has no metric %s", d.dir, series)
}
