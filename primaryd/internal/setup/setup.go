// Package setup knows what a registry's own configuration must say for its notifications to arrive: it words the block
// for each kind of registry, and checks a file against it.
//
// It guarantees that no finding repeats a secret, ours or one that stands in the file. It refuses to pretend: what a kind
// never notifies of, the block says, and a kind without a file is not checked.
package setup

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/antipode-registry/antipode/internal/checkup"
)

// Endpoint is where a registry is to notify, and with what.
type Endpoint struct {
	URL    string // of primaryd's /notifications, as the registry reaches it
	Secret string // of notifications.secret_file
	Remark string // a comment for the reader of the block, lines without the leading "#"; "" for none
}

// bearer is the value of the Authorization header.
func (e Endpoint) bearer() string { return "Bearer " + e.Secret }

// withPassword is the URL for a sender that can set no header: the secret is the password in it.
func (e Endpoint) withPassword() string {
	u, err := url.Parse(e.URL)
	if err != nil {
		return e.URL
	}
	u.User = url.UserPassword("antipode", e.Secret)
	return u.String()
}

// Kinds are the kinds of registries that Block knows.
func Kinds() []string {
	return []string{"distribution", "docker-registry", "gitlab", "harbor", "zot", "quay"}
}

// Checkable are the kinds that are configured in a file.
func Checkable() []string { return []string{"distribution", "docker-registry", "gitlab", "zot"} }

// Block words the configuration for a kind of registry; ok is false for a kind that is not known.
func Block(kind string, e Endpoint) (text string, ok bool) {
	switch kind {
	case "distribution", "docker-registry":
		return fmt.Sprintf(distribution, remark(e.Remark, "      # "), quoted(e.URL), quoted(e.bearer())), true
	case "gitlab":
		return fmt.Sprintf(gitlab, remark(e.Remark, "    # "), single(e.URL), single(e.bearer())), true
	case "harbor":
		return fmt.Sprintf(harbor, remark(e.Remark, "# "), quoted(e.URL), quoted(e.bearer())), true
	case "zot":
		return fmt.Sprintf(zot, remark(e.Remark, "# "), quoted(e.URL), quoted(e.Secret)), true
	case "quay":
		return fmt.Sprintf(quay, remark(e.Remark, "# "), quoted(e.withPassword())), true
	}
	return "", false
}

// Check compares a registry's configuration file with what notifications to want need. The kind is one of Checkable; any
// other is taken for a distribution. What the registry takes from its environment (REGISTRY_NOTIFICATIONS_...) is not
// seen.
func Check(kind string, content []byte, want Endpoint) *checkup.Report {
	c := &check{Report: &checkup.Report{}, want: want, kind: kind}
	if kind == "zot" {
		c.zot(content)
	} else {
		c.distribution(content)
	}
	return c.Report
}

func remark(text, prefix string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(prefix + strings.TrimRight(line, "\n") + "\n")
	}
	return b.String()
}

// quoted is a text as a YAML double-quoted scalar, of which JSON's strings are a part (YAML 1.2, section 1.3).
func quoted(text string) string {
	scalar, _ := json.Marshal(text) // a string always can be
	return string(scalar)
}

// single is a text as Ruby's single-quoted string, in which nothing is replaced.
func single(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}

// distribution is the endpoint in the registry's configuration: a remark, the URL, the header. Pulls and blobs say
// nothing about tags; leaving them out keeps the registry's queue short. A time-out below the commit's own would only
// send events twice.
const distribution = `notifications:
  endpoints:
    - name: antipode
%s      url: %s
      headers:
        Authorization: [%s]
      timeout: 5s
      threshold: 10
      backoff: 1s
      ignore:
        actions: [pull]
        mediatypes: [application/octet-stream]
`

// gitlab is the same for GitLab's Linux packages. What its registry ignores is not configurable there; primaryd passes
// over what it does not need.
const gitlab = `# In /etc/gitlab/gitlab.rb, then: gitlab-ctl reconfigure. A registry of GitLab that is configured by a YAML file of its
# own takes what --registry distribution prints.
registry['notifications'] = [
  {
    'name' => 'antipode',
%s    'url' => %s,
    'headers' => { 'Authorization' => [%s] },
    'timeout' => '5s',
    'threshold' => 10,
    'backoff' => '1s'
  }
]
`

// harbor is a webhook policy of a project. Its own format and CloudEvents say the same.
const harbor = `# Harbor is configured for each project: under Webhooks, or by its API, which takes this as
# POST /api/v2.0/projects/PROJECT/webhook/policies:
%s{
  "name": "antipode",
  "enabled": true,
  "event_types": ["PUSH_ARTIFACT", "DELETE_ARTIFACT", "TAG_RETENTION", "REPLICATION"],
  "targets": [
    {
      "type": "http",
      "address": %s,
      "auth_header": %s
    }
  ]
}
# Harbor says nothing when a single tag is added or removed in its user interface or by its API, gives a webhook up
# after three tries, and knows no webhook for all projects. What is not told the sweep finds: in primaryd's configuration
# choose how long that may take, such as sweep: {interval: 10m}.
`

// zot is the part of zot's configuration. The token is sent as a bearer's.
const zot = `# In zot's configuration, which is JSON: leave these comments out. zot must be built with its extension for events, as
# the full image is.
%s{
  "extensions": {
    "events": {
      "enable": true,
      "sinks": [
        {
          "type": "http",
          "address": %s,
          "timeout": "10s",
          "credentials": {"token": %s}
        }
      ]
    }
  }
}
# zot sends each event once, and none again. What is lost the sweep finds: in primaryd's configuration choose how long
# that may take, such as sweep: {interval: 10m}.
`

// quay is a notification of a repository. Quay sends no header of one's own, but makes one of the user information in a
// URL, as its HTTP library (Python's requests) does.
const quay = `# Quay is configured for each repository: under Settings, Notifications, or by its API, which takes this as
# POST /api/v1/repository/NAMESPACE/REPOSITORY/notification/
# The secret is the password in the URL, since Quay sets no headers: who administers the repository can read it there, and
# Quay writes the URL to its log when primaryd does not answer.
%s{
  "title": "antipode",
  "event": "repo_push",
  "eventConfig": {},
  "method": "webhook",
  "config": {"url": %s}
}
# The same with "event": "repo_mirror_sync_success" for a repository that Quay mirrors from elsewhere.
# Quay says nothing of deleted, moved and expired tags, nor of manifests without a tag, gives a notification up after
# three failures in a row, and refuses to notify 127.0.0.1 and localhost. What is not told the sweep finds: in primaryd's
# configuration choose how long that may take, such as sweep: {interval: 5m}.
`
