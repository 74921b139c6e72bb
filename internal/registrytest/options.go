package registrytest

// Option changes how a registry is started.
type Option func(*settings)

type settings struct {
	storage   string
	endpoints []any
	edits     []func(map[string]any)
}

// WithNotifications makes the registry send its events to url with `Authorization: Bearer SECRET`, configured as
// Antipode recommends it: no pull events, none for blobs. It may be given several times.
func WithNotifications(url, secret string) Option {
	return func(s *settings) {
		s.endpoints = append(s.endpoints, map[string]any{
			"name":              "antipode",
			"url":               url,
			"headers":           map[string]any{"Authorization": []string{"Bearer " + secret}},
			"timeout":           "1s",
			"threshold":         3,
			"backoff":           "200ms",
			"ignoredmediatypes": []string{"application/octet-stream"},
			"ignore":            map[string]any{"actions": []string{"pull"}},
		})
	}
}

// WithConfig edits the registry's configuration, in the shape of its YAML file, before it is written. What is under
// "http" and "storage" is complete by then.
func WithConfig(edit func(config map[string]any)) Option {
	return func(s *settings) { s.edits = append(s.edits, edit) }
}

// WithStorage keeps the registry's content in dir, which outlives the registry if it outlives the test.
func WithStorage(dir string) Option {
	return func(s *settings) { s.storage = dir }
}

// config is the registry's configuration file. Distribution v3 and docker-registry 2.8 read the same keys here; what
// v3 added (catalog, OTEL) is left at its default.
func (s *settings) config(address string) map[string]any {
	config := map[string]any{
		"version": "0.1",
		"log":     map[string]any{"level": "error", "accesslog": map[string]any{"disabled": true}},
		"storage": map[string]any{
			"filesystem": map[string]any{"rootdirectory": s.storage},
			"delete":     map[string]any{"enabled": true},
		},
		// A set secret lets an upload begun before a restart go on after it, as it does in a real installation.
		"http": map[string]any{"addr": address, "secret": "registrytest"},
	}
	if len(s.endpoints) > 0 {
		config["notifications"] = map[string]any{"endpoints": s.endpoints}
	}
	for _, edit := range s.edits {
		edit(config)
	}
	return config
}
