package e2e

import (
	"context"
	"strings"
	"testing"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// option changes how a pair is made.
type option func(*options)

type options struct {
	site                           func(testing.TB, ...registrytest.Option) *registrytest.Process
	primaryConfig, secondaryConfig []func(map[string]any)
	primaryRegistry, siteRegistry  []registrytest.Option
	primaryProxy, siteProxy        bool
	before                         func(ctx context.Context, to *registrytest.Client) error
	notificationsOff               bool
}

// gather applies the options to what holds without any.
func gather(opts []option) options {
	o := options{site: registrytest.Distribution}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// withSite says which registry the site has; CNCF distribution unless said.
func withSite(start func(testing.TB, ...registrytest.Option) *registrytest.Process) option {
	return func(o *options) { o.site = start }
}

// withPrimaryConfig sets a key such as "sweep.interval" in primaryd's file.
func withPrimaryConfig(key string, value any) option {
	return func(o *options) {
		o.primaryConfig = append(o.primaryConfig, func(config map[string]any) { set(config, key, value) })
	}
}

// withSecondaryConfig sets a key in secondaryd's file.
func withSecondaryConfig(key string, value any) option {
	return func(o *options) {
		o.secondaryConfig = append(o.secondaryConfig, func(config map[string]any) { set(config, key, value) })
	}
}

// withPrimaryProxy puts a recording, faulty proxy before the primary's registry; both daemons reach it through that.
func withPrimaryProxy() option { return func(o *options) { o.primaryProxy = true } }

// withSiteProxy puts such a proxy between secondaryd and the site's registry.
func withSiteProxy() option { return func(o *options) { o.siteProxy = true } }

// withPrimaryRegistry gives options to the primary's registry.
func withPrimaryRegistry(opts ...registrytest.Option) option {
	return func(o *options) { o.primaryRegistry = append(o.primaryRegistry, opts...) }
}

// withSiteRegistry gives options to the site's registry.
func withSiteRegistry(opts ...registrytest.Option) option {
	return func(o *options) { o.siteRegistry = append(o.siteRegistry, opts...) }
}

// withContent pushes something to the primary's registry before it has notifications configured, and before either
// daemon is there.
func withContent(fill func(ctx context.Context, to *registrytest.Client) error) option {
	return func(o *options) { o.before = fill }
}

// withoutNotifications drops every notification from the start; see pair.Notifications.
func withoutNotifications() option { return func(o *options) { o.notificationsOff = true } }

// set puts a value at a dotted key, making the maps on the way.
func set(config map[string]any, key string, value any) {
	name, rest, nested := strings.Cut(key, ".")
	if !nested {
		config[name] = value
		return
	}
	inner, ok := config[name].(map[string]any)
	if !ok {
		inner = map[string]any{}
		config[name] = inner
	}
	set(inner, rest, value)
}

// eachSite runs fn for both kinds of registries that a site may have, side by side.
func eachSite(t *testing.T, fn func(t *testing.T, site option)) {
	t.Helper()
	t.Run("distribution", func(t *testing.T) {
		t.Parallel()
		fn(t, withSite(registrytest.Distribution))
	})
	t.Run("debian", func(t *testing.T) {
		t.Parallel()
		fn(t, withSite(registrytest.Debian))
	})
}
