// Package setup knows what a registry's own configuration must say for its notifications to arrive: it words the block
// for each kind of registry, and checks a file against it.
//
// It guarantees that no finding repeats a secret, ours or one that stands in the file. It refuses to pretend: for a kind
// whose events primaryd does not read, the block says so and what to do instead.
package setup

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Endpoint is where a registry is to notify, and with what.
type Endpoint struct {
	URL    string // of primaryd's /notifications, as the registry reaches it
	Secret string // of notifications.secret_file
	Remark string // a comment for the reader of the block, lines without the leading "#"; "" for none
}

// Kinds are the kinds of registries that Block knows.
func Kinds() []string {
	return []string{"distribution", "docker-registry", "gitlab", "harbor", "zot", "quay"}
}

// Block words the configuration for a kind of registry; ok is false for a kind that is not known.
func Block(kind string, e Endpoint) (text string, ok bool) {
	switch kind {
	case "distribution", "docker-registry":
		return fmt.Sprintf(distribution, remark(e.Remark, "      # "), quoted(e.URL), quoted("Bearer "+e.Secret)), true
	case "gitlab":
		return fmt.Sprintf(gitlab, remark(e.Remark, "    # "), single(e.URL), single("Bearer "+e.Secret)), true
	case "harbor":
		return fmt.Sprintf(sweptAlone, "Harbor", "Its webhooks have a format of their own, which primaryd answers with HTTP 400.",
			"A robot account that may list the catalog is needed: see docs/registries.md."), true
	case "zot":
		return fmt.Sprintf(sweptAlone, "zot", "Its events are CloudEvents, which primaryd answers with HTTP 400.",
			"Leave extensions.events without a sink that leads here."), true
	case "quay":
		return fmt.Sprintf(sweptAlone, "Quay", "Its notifications have a format of their own, which primaryd answers with HTTP 400.",
			"They would tell of pushes alone."), true
	}
	return "", false
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

// sweptAlone is for registries whose events are not read.
const sweptAlone = `# %s needs nothing in its own configuration: primaryd follows it by its sweep alone.
# %s
# %s
# In primaryd's configuration choose how long a change may go unseen; each round lists every repository:
sweep: {interval: 5m}
`
