package transfer_test

import (
	"context"
	"testing"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/internal/telemetry"
	"github.com/antipode-registry/antipode/internal/telemetry/telemetrytest"
	"github.com/antipode-registry/antipode/internal/transfer"
)

// A copy is a span, and so is what makes it be seen: each tag, good or bad.
func TestCopiesAreTraced(t *testing.T) {
	t.Parallel()
	p, recorder := newPair(), telemetrytest.NewRecorder()
	p.copier = transfer.New(p.dst, p.index, transfer.Options{Tracer: telemetry.NewTracer(recorder, "")})
	img := registrytest.NewImage(1, 2, 10)
	p.src.push("app", img)
	p.dst.onPutManifest = func(_ context.Context, _, reference string) error {
		if reference == "bad" {
			return &registry.Error{Side: registry.Destination, Err: errTest}
		}
		return nil
	}
	ctx, span := recorder.Traced(t.Context())
	if _, err := p.copier.Copy(ctx, request(p.src, "app", img, "bad", "good")); err != nil {
		t.Fatal(err)
	}
	graph := recorder.One(t, "copy graph")
	graph.Has(t, "repository", "app", "digest", img.Digest, "blobs_copied", "3")
	if graph.Parent != span.SpanContext().SpanID().String() || graph.Error != "" {
		t.Errorf("the copy: %+v", graph)
	}
	tags := recorder.Named("write tag")
	if len(tags) != 2 || tags[0].Parent != graph.ID || tags[1].Parent != graph.ID || tags[1].Error != "" {
		t.Fatalf("the tags: %+v", tags)
	}
	tags[0].Has(t, "reference", "bad", "digest", img.Digest, "side", "destination")
	tags[1].Has(t, "reference", "good", "digest", img.Digest, "side", "")

	if _, err := p.copier.Copy(ctx, request(p.src, "app", registrytest.NewImage(2, 1, 10))); err == nil {
		t.Fatal("what is not there was copied")
	}
	if failed := recorder.Named("copy graph")[1]; failed.Error == "" {
		t.Errorf("the copy that failed: %+v", failed)
	}
}
