package setup

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// zotFile is what is read of zot's configuration. zot takes names in any case, as encoding/json does.
type zotFile struct {
	Extensions struct {
		Events struct {
			Enable bool      `json:"enable"`
			Sinks  []zotSink `json:"sinks"`
		} `json:"events"`
	} `json:"extensions"`
}

type zotSink struct {
	Type        string            `json:"type"`
	Address     string            `json:"address"`
	Timeout     string            `json:"timeout"`
	Headers     map[string]string `json:"headers"`
	Credentials struct {
		Username string `json:"username"`
		Password string `json:"password"`
		Token    string `json:"token"`
	} `json:"credentials"`
}

// zot checks a configuration of zot.
func (c *check) zot(content []byte) {
	f, err := readZot(content)
	if err != nil {
		c.Fail(subject, "correct it: zot would not start with it", "the file cannot be read: %v", err)
		return
	}
	events := f.Extensions.Events
	ours := slices.DeleteFunc(slices.Clone(events.Sinks), func(s zotSink) bool { return !c.leadsHere(s.Address) })
	switch {
	case len(events.Sinks) == 0:
		c.Fail(subject, add, "zot notifies nobody: extensions.events has no sinks")
	case len(ours) == 0:
		c.Fail(subject, add, "none of the %d sinks leads to primaryd", len(events.Sinks))
	case len(ours) > 1:
		c.Warn(subject, "keep one of them", "%d sinks lead to primaryd: every event is sent that often", len(ours))
	}
	if len(ours) > 0 && !events.Enable {
		c.Fail(subject, "extensions.events.enable: true", "zot's events are not enabled")
	}
	for _, sink := range ours {
		c.sink(sink)
	}
}

// readZot reads JSON, or YAML, which zot takes too.
func readZot(content []byte) (f zotFile, err error) {
	if !json.Valid(content) {
		var any map[string]any
		if err := yaml.Unmarshal(content, &any); err != nil {
			return f, err
		}
		if content, err = json.Marshal(any); err != nil {
			return f, err
		}
	}
	return f, json.Unmarshal(content, &f)
}

func (c *check) sink(sink zotSink) {
	if sink.Type != "http" {
		c.Fail(subject, "type: http", "the sink to primaryd is of the type %q", sink.Type)
	}
	c.url("address", "the sink", sink.Address)
	switch presented := sink.presents(c.want); {
	case len(presented) == 0:
		c.Fail(subject, "credentials: {token: the secret}", "the sink presents no secret: every event would be refused with 401, and be lost")
	case !presented[0]:
		c.Fail(subject, "credentials: {token: the secret}", "the sink presents another secret: every event would be refused with 401, and be lost")
	case len(presented) > 1:
		c.Warn(subject, "keep one of credentials and headers", "the sink sends %d Authorization headers", len(presented))
	default:
		c.OK(subject, "the sink presents the secret")
	}
	c.sinkTimeout(sink)
}

// presents says of each Authorization header that zot would send whether it is right, in their order.
func (s zotSink) presents(want Endpoint) (right []bool) {
	switch {
	case s.Credentials.Username != "":
		right = append(right, s.Credentials.Password == want.Secret)
	case s.Credentials.Token != "":
		right = append(right, s.Credentials.Token == want.Secret)
	}
	for name, value := range s.Headers {
		if strings.EqualFold(name, "Authorization") {
			right = append(right, value == want.bearer())
		}
	}
	return right
}

// sinkTimeout looks at how long zot waits. Nothing means 30 seconds to it.
func (c *check) sinkTimeout(sink zotSink) {
	if sink.Timeout == "" {
		return
	}
	timeout, err := time.ParseDuration(sink.Timeout)
	switch {
	case err != nil:
		c.Fail(subject, `timeout: "10s"`, "the timeout %q of the sink is no duration: zot would not start", sink.Timeout)
	case timeout > 0 && timeout < leastTimeout:
		c.Warn(subject, `timeout: "10s"`, "the sink waits for %v alone: a slow commit is taken for a failure, which zot only logs", timeout)
	}
}
