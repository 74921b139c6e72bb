package replicate

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/transfer"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// copiesAtOnce bounds the graphs of one repository that are copied at the same time; the copier bounds the blobs of all
// repositories together, and each registry's budget its requests.
const copiesAtOnce = 8

// applied is what came of a plan.
type applied struct {
	tagged, created, removed int64
	vanished                 bool // something that was listed is no longer at the source
	errs                     []error
}

// err is the first error, and how many more there are.
func (a applied) err() error {
	if len(a.errs) == 1 {
		return a.errs[0]
	}
	return fmt.Errorf("%w (and %d more)", a.errs[0], len(a.errs)-1)
}

// apply copies, then removes. Removals are made even if a copy failed: they follow from the same listing, and one broken
// tag must not keep its siblings from being right.
func (e *Engine) apply(
	ctx context.Context, repository string, c comparison, held *heldLease, work *Active, story *journal,
) applied {
	var (
		mu     sync.Mutex
		result applied
		copies errgroup.Group
	)
	copies.SetLimit(copiesAtOnce)
	for _, step := range c.plan.Copies {
		copies.Go(func() error {
			done, err := e.copy(ctx, repository, c, step, held, work)
			mu.Lock()
			defer mu.Unlock()
			result.take(step, done, err, story)
			return nil
		})
	}
	_ = copies.Wait() // every outcome is in result
	for _, removal := range c.plan.Removals {
		if err := e.remove(ctx, repository, removal, held); err != nil {
			result.errs = append(result.errs, err)
			story.add("failed", removal.Tag, removal.Digest, "", err.Error())
			if errors.Is(err, tracking.ErrLeaseLost) || ctx.Err() != nil {
				break
			}
			continue
		}
		result.removed++
		story.add("removed", removal.Tag, "", removal.Digest, "the primary no longer has the tag")
	}
	e.opts.Metrics.changed(result)
	for _, kept := range c.plan.Kept {
		story.add("kept", kept.Tag, kept.Digest, "", kept.Reason)
	}
	return result
}

// copy brings one graph over and writes its tags.
func (e *Engine) copy(
	ctx context.Context, repository string, c comparison, step plan.Copy, held *heldLease, work *Active,
) (transfer.Result, error) {
	names := make([]string, len(step.Tags))
	for i, tag := range step.Tags {
		names[i] = tag.Name
	}
	done, err := e.Copier.Copy(ctx, transfer.Request{
		Source: c.source, SourceRepository: repository, Repository: repository,
		Root: c.tags[step.Tags[0].Name], Tags: names, Progress: work.progress(), Fence: held.fence,
	})
	e.bytes.Add(done.Bytes)
	return done, err
}

// take adds the outcome of one copy.
func (a *applied) take(step plan.Copy, done transfer.Result, err error, story *journal) {
	if err != nil {
		if isVanished(err) {
			a.vanished = true
		}
		err = &referenceError{reference: step.Tags[0].Name, err: err}
		a.errs = append(a.errs, err)
		for _, tag := range step.Tags {
			story.add("failed", tag.Name, step.Digest, tag.Previous, err.Error())
		}
		return
	}
	story.add("copied", step.Digest, step.Digest, "", fmt.Sprintf("%d bytes; %d blobs copied, %d mounted",
		done.Bytes, done.BlobsCopied, done.BlobsMounted))
	for _, reason := range done.Skipped {
		story.add("kept", step.Digest, step.Digest, "", reason)
	}
	for _, tag := range step.Tags {
		if err := done.TagErrors[tag.Name]; err != nil {
			a.errs = append(a.errs, &referenceError{reference: tag.Name, err: err})
			story.add("failed", tag.Name, step.Digest, tag.Previous, err.Error())
			continue
		}
		a.tagged++
		if tag.Previous == "" {
			a.created++
		}
		story.add("tagged", tag.Name, step.Digest, tag.Previous, "")
	}
}

// remove deletes one tag, if the lease still holds.
func (e *Engine) remove(ctx context.Context, repository string, removal plan.Removal, held *heldLease) error {
	if err := held.fence(ctx); err != nil {
		return fmt.Errorf("remove %s:%s: %w", repository, removal.Tag, err)
	}
	return e.Site.DeleteTag(ctx, repository, removal.Tag)
}

// isVanished says whether err is the source's word that something listed is no more.
func isVanished(err error) bool {
	var failed *registry.Error
	return errors.Is(err, registry.ErrNotFound) && errors.As(err, &failed) && failed.Side == registry.Source
}
