package notification

import (
	"strings"
	"time"

	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// Harbor's types of events that say that tags changed, as its own format calls them.
const (
	harborPush        = "PUSH_ARTIFACT"
	harborDelete      = "DELETE_ARTIFACT"
	harborRetention   = "TAG_RETENTION"
	harborReplication = "REPLICATION"
)

// harborTypes are the types of Harbor's CloudEvents for these.
var harborTypes = map[string]string{
	"harbor.artifact.pushed":            harborPush,
	"harbor.artifact.deleted":           harborDelete,
	"harbor.tag_retention.finished":     harborRetention,
	"harbor.replication.status.changed": harborReplication,
}

// harborEvent is what is read of a webhook in Harbor's own format (src/pkg/notifier/model of Harbor).
type harborEvent struct {
	Type    string     `json:"type"`
	OccurAt int64      `json:"occur_at"` // unix seconds
	Data    harborData `json:"event_data"`
}

// harborData is what both formats have in common.
type harborData struct {
	Resources []struct {
		Digest string `json:"digest"`
		Tag    string `json:"tag"` // the digest, where there is none
	} `json:"resources"`
	Repository struct {
		FullName string `json:"repo_full_name"`
	} `json:"repository"`
	Retention struct {
		Project string           `json:"project_name"`
		Deleted []harborArtifact `json:"deleted_artifact"`
	} `json:"retention"`
	Replication struct {
		Source      harborPlace      `json:"src_resource"`
		Destination harborPlace      `json:"dest_resource"`
		Copied      []harborArtifact `json:"successful_artifact"`
		Failed      []harborArtifact `json:"failed_artifact"`
	} `json:"replication"`
}

// harborArtifact names its repository within the project, with one of its tags, its digest or the number of artifacts
// after it: `app:v1`, `app@sha256:...`, `app [3 item(s) in total]`.
type harborArtifact struct {
	NameAndTag string `json:"name_tag"`
}

// harborPlace is one end of a replication. This Harbor has no registry name, and the other end has.
type harborPlace struct {
	Registry  string `json:"registry_name"`
	Namespace string `json:"namespace"`
}

// harbor reads a webhook in Harbor's own format.
func (p *parsed) harbor(body []byte) {
	var e harborEvent
	if p.read(body, &e) {
		p.take(e.Data.changes(e.Type, second(e.OccurAt)))
	}
}

// second is a time in unix seconds; zero, which means now, outside the years that a text can tell.
func second(unix int64) time.Time {
	if t := time.Unix(unix, 0).UTC(); unix > 0 && t.Year() > 0 && t.Year() < 10000 {
		return t
	}
	return time.Time{}
}

func (d harborData) changes(kind string, at time.Time) (changes []feed.Change, result string) {
	switch kind {
	case harborPush:
		return d.pushed(at)
	case harborDelete:
		return unknown(at, d.Repository.FullName) // of the tags that went with the artifact it names one
	case harborRetention:
		return unknown(at, within(d.Retention.Project, d.Retention.Deleted)...)
	case harborReplication:
		if r := d.Replication; r.Destination.Registry == "" && r.Source.Registry != "" {
			return unknown(at, within(r.Destination.Namespace, append(r.Copied, r.Failed...))...)
		}
	}
	return nil, resultIgnored // a pull, a scan, a quota, a replication to elsewhere
}

// pushed takes each artifact. What became of the event is the best that became of one.
func (d harborData) pushed(at time.Time) (changes []feed.Change, result string) {
	result = resultInvalid
	for _, resource := range d.Resources {
		more, became := pushed(d.Repository.FullName, resource.Tag, resource.Digest, at)
		changes = append(changes, more...)
		if result != resultChange && len(more) > 0 {
			result = became
		}
	}
	return changes, result
}

// within names the repositories of artifacts in a project.
func within(project string, artifacts []harborArtifact) (names []string) {
	for _, artifact := range artifacts {
		name, _, _ := strings.Cut(artifact.NameAndTag, " ")
		if at := strings.IndexAny(name, ":@"); at >= 0 {
			name = name[:at]
		}
		names = append(names, project+"/"+name)
	}
	return names
}
