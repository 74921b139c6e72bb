package notification_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/client"
	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/protocol"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/primaryd/internal/notification"
)

// TestCloudEventsOfTheSDK has the library that zot and Harbor send with send to us: as zot does, with the attributes in
// headers; as Harbor does, as one object; and as a batch.
func TestCloudEventsOfTheSDK(t *testing.T) {
	var stored recorder
	server := httptest.NewServer(notification.NewHandler(options(&stored)))
	defer server.Close()
	transport, err := cehttp.New(cehttp.WithTarget(server.URL), cehttp.WithHeader("Authorization", "Bearer "+secret))
	if err != nil {
		t.Fatal(err)
	}
	sender, err := client.New(transport)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	if err := sender.Send(t.Context(), deleted(t, "v1", at)); !protocol.IsACK(err) {
		t.Errorf("attributes in headers: %v", err)
	}
	if err := sender.Send(binding.WithForceStructured(t.Context()), deleted(t, "v2", at)); !protocol.IsACK(err) {
		t.Errorf("one object: %v", err)
	}
	postAll(t, server, deleted(t, "v3", at), deleted(t, "v4", at))

	var got []string
	for _, change := range stored.changes {
		got = append(got, change.Tags[0].Tag)
		if !change.At.Equal(at) || !change.Tags[0].Deleted {
			t.Errorf("%+v", change)
		}
	}
	if diff := cmp.Diff([]string{"v1", "v2", "v3", "v4"}, got); diff != "" {
		t.Error(diff)
	}
}

func deleted(t *testing.T, tag string, at time.Time) event.Event {
	t.Helper()
	e := event.New()
	e.SetID("of-" + tag)
	e.SetSource("zotregistry.dev")
	e.SetType("zotregistry.image.deleted")
	e.SetTime(at)
	e.SetExtension("channel", "alerts")
	data := map[string]any{"name": "team/app", "reference": tag, "mediaType": "application/vnd.oci.image.manifest.v1+json"}
	if err := e.SetData(event.ApplicationJSON, data); err != nil {
		t.Fatal(err)
	}
	return e
}

func postAll(t *testing.T, server *httptest.Server, events ...event.Event) {
	t.Helper()
	body, err := json.Marshal(events)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", event.ApplicationCloudEventsBatchJSON)
	request.SetBasicAuth("anybody", secret)
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("a batch: %s, %v", response.Status, err)
	}
}
