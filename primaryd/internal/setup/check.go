package setup

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/antipode-registry/antipode/internal/checkup"
)

const (
	subject = "notifications"
	// leastTimeout is what a commit and a busy network may well take; the registry's own default is one second.
	leastTimeout = 2 * time.Second
	// mostBackoff is for how long a registry that failed to notify may stay silent.
	mostBackoff = time.Minute
	// leastRetries last over a restart of primaryd, with a second or more between them.
	leastRetries = 10
	add          = "put the block that primaryd notifications prints into the file"
)

// file is what is read of a CNCF distribution configuration, version 2.x or 3.x.
type file struct {
	Notifications struct {
		Events struct {
			IncludeReferences bool `yaml:"includereferences"`
		} `yaml:"events"`
		Endpoints []endpoint `yaml:"endpoints"`
	} `yaml:"notifications"`
}

type endpoint struct {
	Name              string               `yaml:"name"`
	Disabled          bool                 `yaml:"disabled"`
	URL               string               `yaml:"url"`
	Headers           map[string]yaml.Node `yaml:"headers"`
	Timeout           string               `yaml:"timeout"`
	Threshold         int                  `yaml:"threshold"`
	MaxRetries        int                  `yaml:"maxretries"` // of GitLab's, which gives an event up after as many
	Backoff           string               `yaml:"backoff"`
	IgnoredMediaTypes []string             `yaml:"ignoredmediatypes"`
	Ignore            struct {
		MediaTypes []string `yaml:"mediatypes"`
		Actions    []string `yaml:"actions"`
	} `yaml:"ignore"`
}

// distribution checks a YAML file of CNCF distribution's registry, or of GitLab's, which is a fork of it.
func (c *check) distribution(content []byte) {
	var f file
	if err := yaml.Unmarshal(content, &f); err != nil {
		c.Fail(subject, c.theFile("correct it: the registry would not start with it"), "the file cannot be read: %v", err)
		return
	}
	ours := c.ours(f.Notifications.Endpoints)
	switch {
	case len(f.Notifications.Endpoints) == 0:
		c.Fail(subject, c.theFile(add), "the registry notifies nobody")
	case len(ours) == 0:
		c.Fail(subject, c.theFile(add), "none of the %d endpoints leads to primaryd", len(f.Notifications.Endpoints))
	case len(ours) > 1:
		c.Warn(subject, "keep one of them", "%d endpoints lead to primaryd: every event is sent that often", len(ours))
	}
	for _, e := range ours {
		c.endpoint(e)
	}
	if f.Notifications.Events.IncludeReferences {
		c.Warn(subject, "remove notifications.events.includereferences, unless another endpoint needs it",
			"every event carries the list of all that its manifest refers to, which primaryd does not need")
	}
}

// theFile adds to a mend which file is meant, where there is another that is no YAML.
func (c *check) theFile(mend string) string {
	if c.kind != "gitlab" {
		return mend
	}
	return mend + "; what can be checked is not gitlab.rb but what gitlab-ctl reconfigure makes of it, " +
		"/var/opt/gitlab/registry/config.yml"
}

// check is one file under examination.
type check struct {
	*checkup.Report

	want Endpoint
	kind string
}

// ours are the endpoints that are meant for primaryd: by their address, their path or their name.
func (c *check) ours(all []endpoint) []endpoint {
	var list []endpoint
	for _, e := range all {
		if c.leadsHere(e.URL) || e.Name == "antipode" {
			list = append(list, e)
		}
	}
	return list
}

func (c *check) leadsHere(address string) bool {
	u, err := url.Parse(address)
	return address == c.want.URL || err == nil && strings.TrimRight(u.Path, "/") == "/notifications"
}

func (c *check) endpoint(e endpoint) {
	if e.Disabled {
		c.Fail(subject, "remove `disabled`", "the endpoint %s is disabled", e.Name)
	}
	c.url("url", e.Name, e.URL)
	c.secret(e)
	c.patience(e)
	c.ignored(e)
}

// url checks the address that stands under the key in what is called name.
func (c *check) url(key, name, address string) {
	mend := key + ": " + c.want.URL
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		c.Fail(subject, mend, "the %s of %s is none that a registry could notify", key, name)
	case u.Path != "/notifications":
		c.Fail(subject, mend, "the %s of %s has the path %q, where primaryd takes no notifications", key, name, u.Path)
	case address != c.want.URL:
		c.Warn(subject, "see that it leads to primaryd, as through a proxy or by another name; --url says which one is right",
			"%s notifies %s://%s, not %s", name, u.Scheme, u.Host, c.want.URL)
	default:
		c.OK(subject, "%s notifies %s", name, address)
	}
}

// secret compares the header with what primaryd expects. The registry takes lists alone, and sends each value.
func (c *check) secret(e endpoint) {
	const mend = "give it the header that primaryd notifications prints"
	var node yaml.Node
	for name, value := range e.Headers {
		if strings.EqualFold(name, "Authorization") {
			node = value
		}
	}
	var values []string
	switch {
	case node.IsZero():
		c.Fail(subject, mend, "%s has no Authorization header: every notification would be refused with 401", e.Name)
	case node.Kind != yaml.SequenceNode || node.Decode(&values) != nil || len(values) == 0:
		c.Fail(subject, mend, "the Authorization header of %s must be a list: the registry would not start", e.Name)
	case values[0] != c.want.bearer():
		c.Fail(subject, mend, "the Authorization header of %s is not our secret: every notification would be refused with 401", e.Name)
	case len(values) > 1:
		c.Warn(subject, "keep the first one alone", "%s sends %d Authorization headers", e.Name, len(values))
	default:
		c.OK(subject, "%s presents the secret", e.Name)
	}
}

// patience looks at how the registry waits and tries again.
func (c *check) patience(e endpoint) {
	timeout, timeoutErr := duration(e.Timeout, time.Second)
	backoff, backoffErr := duration(e.Backoff, time.Second)
	switch {
	case timeoutErr != nil || backoffErr != nil:
		c.Fail(subject, "write them as 5s and 1s", "timeout %q or backoff %q of %s is no duration: the registry would not start",
			e.Timeout, e.Backoff, e.Name)
		return
	case timeout < leastTimeout:
		c.Warn(subject, "timeout: 5s", "%s waits for %v alone: a slow commit gets its event twice", e.Name, timeout)
	case backoff > mostBackoff:
		c.Warn(subject, "backoff: 1s", "after failures %s pauses for %v, and everything behind waits", e.Name, backoff)
	case c.kind == "gitlab" && e.MaxRetries > 0 && e.MaxRetries < leastRetries:
		c.Warn(subject, fmt.Sprintf("maxretries: %d", leastRetries), "%s gives an event up after %d tries", e.Name, e.MaxRetries)
	case e.Threshold < 0:
		c.Warn(subject, "threshold: 10", "the threshold of %s is negative", e.Name)
	default:
		c.OK(subject, "%s waits for %v, and tries again after %v", e.Name, timeout, backoff)
	}
}

// duration reads one as the registry does; 0 and nothing mean its default.
func duration(text string, preset time.Duration) (time.Duration, error) {
	if text == "" {
		return preset, nil
	}
	d, err := time.ParseDuration(text)
	if d == 0 {
		return preset, err
	}
	return d, err
}

// blobs is the media type of an event about a blob.
const blobs = "application/octet-stream"

// ignored looks at what is not sent: nothing that primaryd needs, and better not what it has no use for.
func (c *check) ignored(e endpoint) {
	types := slices.Concat(e.IgnoredMediaTypes, e.Ignore.MediaTypes)
	var needed []string
	for _, action := range []string{"push", "delete"} {
		if slices.Contains(e.Ignore.Actions, action) {
			needed = append(needed, "the action "+action)
		}
	}
	for _, mediaType := range types {
		if strings.Contains(mediaType, "manifest") || strings.Contains(mediaType, "image.index") {
			needed = append(needed, "the media type "+mediaType)
		}
	}
	useless := c.useless(e.Ignore.Actions, types)
	if len(needed) > 0 {
		c.Fail(subject, "remove it from what is ignored: without it changes are seen by the sweep alone", "%s leaves out %s",
			e.Name, strings.Join(needed, ", "))
	}
	if len(useless) > 0 {
		c.Warn(subject, "ignore them: they only fill the registry's queue", "%s sends %s", e.Name, strings.Join(useless, " and "))
	}
	if len(needed)+len(useless) == 0 {
		c.OK(subject, "%s sends what primaryd needs and nothing else", e.Name)
	}
}

// useless names what is sent that primaryd has no use for. GitLab's packages have no setting for it.
func (c *check) useless(actions, types []string) (list []string) {
	if c.kind == "gitlab" {
		return nil
	}
	if !slices.Contains(actions, "pull") {
		list = append(list, "every pull (ignore: {actions: [pull]})")
	}
	if !slices.Contains(types, blobs) {
		list = append(list, fmt.Sprintf("every layer (ignore: {mediatypes: [%s]})", blobs))
	}
	return list
}
