package replicate

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/transfer"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// copiesAtOnce bounds the graphs of one repository that are copied at the same time; the copier bounds the blobs of all
// repositories together, and each registry's budget its requests.
const copiesAtOnce = 16

// applied is what came of a plan.
type applied struct {
	written, removed int64           // tags and manifests without one
	planned          int64           // of those removed, what the plan asked for
	vanished         bool            // something that was listed is no longer at the source
	failed           map[string]bool // names in the plan that could not be written
	errs             []error
}

// err is the first error, and how many more there are.
func (r *applied) err() error {
	if len(r.errs) == 1 {
		return r.errs[0]
	}
	return fmt.Errorf("%w (and %d more)", r.errs[0], len(r.errs)-1)
}

func (r *applied) fail(name string) {
	if r.failed == nil {
		r.failed = map[string]bool{}
	}
	r.failed[name] = true
}

// apply copies, then removes. Removals are made even if a copy failed: they follow from the same listing, and one broken
// tag must not keep its siblings from being right.
func (a *attempt) apply(ctx context.Context, c comparison) applied {
	var result applied
	// Signatures before what they sign, so that who pulls a new image finds its signature there.
	first, rest := split(c.plan.Copies, func(step plan.Copy) bool {
		return !isTag(step.Tags[0].Name) || isFallbackTag(step.Tags[0].Name)
	})
	notes := a.Copier.Notes(a.target)
	a.copyAll(ctx, c, first, notes, &result)
	a.copyAll(ctx, c, rest, notes, &result)
	if err := notes.Tell(ctx); err != nil {
		result.errs = append(result.errs, fmt.Errorf("note what was copied to %s: %w", a.target, err))
	}
	a.removeAll(ctx, c, &result)
	for _, kept := range c.plan.Kept {
		a.story.add("kept", kept.Tag, kept.Digest, "", kept.Reason)
	}
	a.opts.Metrics.changed(result)
	return result
}

func split(steps []plan.Copy, early func(plan.Copy) bool) (first, rest []plan.Copy) {
	for _, step := range steps {
		if early(step) {
			first = append(first, step)
		} else {
			rest = append(rest, step)
		}
	}
	return first, rest
}

func (a *attempt) copyAll(
	ctx context.Context, c comparison, steps []plan.Copy, notes *transfer.Notes, result *applied,
) {
	var (
		mu     sync.Mutex
		next   int
		copies sync.WaitGroup
	)
	take := func() (step plan.Copy, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		if next == len(steps) {
			return step, false
		}
		next++
		return steps[next-1], true
	}
	for range min(copiesAtOnce, len(steps)) {
		copies.Go(func() {
			for step, ok := take(); ok; step, ok = take() {
				done, err := a.copy(ctx, c, step, copying{notes: notes})
				mu.Lock()
				a.take(ctx, step, done, err, result)
				mu.Unlock()
			}
		})
	}
	copies.Wait()
}

// copying is how a graph is brought over.
type copying struct {
	notes  *transfer.Notes // nil = its own
	repair bool            // everything is uploaded, whatever is thought to be there
}

// copy brings one graph over and writes its tags.
func (a *attempt) copy(ctx context.Context, c comparison, step plan.Copy, how copying) (transfer.Result, error) {
	var tags []string
	source := c.source
	for _, tag := range step.Tags {
		if isTag(tag.Name) {
			tags = append(tags, tag.Name)
		}
		if c.restored[tag.Name] {
			source = remnants{Source: c.source, site: a.Site, repository: a.target}
		}
	}
	done, err := a.Copier.Copy(ctx, transfer.Request{
		Source: source, SourceRepository: a.lease.Repository, Repository: a.target,
		Root: c.manifests[step.Tags[0].Name], Manifest: c.carried[step.Digest], Tags: tags, Progress: a.work.progress(),
		Repair: how.repair, Notes: how.notes, Urgent: a.urgent(), Found: a.noteSubject,
	})
	a.bytes.Add(done.Bytes)
	for _, tag := range step.Tags {
		if err == nil && !isTag(tag.Name) {
			err = a.Tracking.AddReferrer(ctx, a.target, tracking.Referrer{
				Digest: step.Digest, Subject: c.subjects[tag.Name], Present: true,
			})
		}
	}
	return done, err
}

// take adds the outcome of one copy.
func (a *attempt) take(ctx context.Context, step plan.Copy, done transfer.Result, err error, result *applied) {
	if err != nil {
		if isVanished(err) {
			result.vanished = true
		}
		if ctx.Err() != nil {
			a.lostCount() // stopped between two tags, or in the middle of one
		}
		err = &referenceError{reference: step.Tags[0].Name, err: err}
		result.errs = append(result.errs, err)
		for _, tag := range step.Tags {
			a.story.add("failed", tag.Name, step.Digest, tag.Previous, err.Error())
			result.fail(tag.Name)
		}
		return
	}
	if done.BlobsCopied+done.BlobsMounted > 0 {
		a.story.add("copied", step.Digest, step.Digest, "", fmt.Sprintf("%d bytes; %d blobs copied, %d mounted",
			done.Bytes, done.BlobsCopied, done.BlobsMounted))
	}
	for _, layer := range done.Skipped {
		a.story.add("kept", step.Digest, step.Digest, "", "not to be distributed, so not copied: "+layer)
	}
	for _, tag := range step.Tags {
		if err := done.TagErrors[tag.Name]; err != nil {
			result.errs = append(result.errs, &referenceError{reference: tag.Name, err: err})
			a.story.add("failed", tag.Name, step.Digest, tag.Previous, err.Error())
			result.fail(tag.Name)
			if !refused(err) {
				a.lostCount()
			}
			continue
		}
		result.written++
		a.wrote(tag.Name, tag.Previous, step.Digest)
		a.work.did(tag.Name)
		a.story.add("tagged", tag.Name, step.Digest, tag.Previous, "")
	}
}

// isVanished says whether err is the source's word that something listed is no more.
func isVanished(err error) bool {
	var failed *registry.Error
	return errors.Is(err, registry.ErrNotFound) && errors.As(err, &failed) && failed.Side == registry.Source
}

// refused says whether the registry answered that it did not do what it was asked for; without such an answer it may
// have done it.
func refused(err error) bool {
	var failed *registry.Error
	return errors.As(err, &failed) && failed.Status >= 400 && failed.Status < 500 && !errors.Is(err, registry.ErrUnavailable)
}
