package replicate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/transfer"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// errStillDamaged says that a copy did not mend what verification had found.
var errStillDamaged = errors.New("still damaged after it was copied again")

// verify checks, if the lease asks for it, everything that the site should hold: the graphs of tags and of referrers, but
// for those that failed to be written, and mends what is not whole. What was just copied is looked at too: the copy may
// have taken for granted what is damaged.
func (a *attempt) verify(ctx context.Context, c comparison, result applied) error {
	if a.lease.Verify == tracking.TagsOnly {
		return nil
	}
	checked := transfer.Checked{}
	seen := map[string]bool{} // digests that were looked at, in any graph
	var errs []error
	for _, step := range wanted(c, result) {
		if err := ctx.Err(); err != nil {
			return err
		}
		found, err := a.check(ctx, c, step, seen)
		if err == nil && len(found.Damages) > 0 {
			err = a.mend(ctx, c, step, found)
			a.damaged = a.damaged || err != nil
		}
		if err != nil {
			errs = append(errs, &referenceError{reference: step.Tags[0].Name, err: err})
			a.story.add("failed", step.Tags[0].Name, step.Digest, "", err.Error())
		}
		checked.Manifests += found.Manifests
		checked.Blobs += found.Blobs
		checked.Bytes += found.Bytes
	}
	if len(errs) > 0 {
		return (&applied{errs: errs}).err()
	}
	// What nothing names any more was not looked at: it may be damaged, or collected as garbage, and must not be taken for
	// granted when a tag comes back to it.
	if err := a.Tracking.Content().Retain(ctx, a.target, func(digest string) bool { return seen[digest] }); err != nil {
		return fmt.Errorf("forget what was not verified: %w", err)
	}
	how := "by their sizes"
	if a.lease.Verify == tracking.Deep {
		how = "read and compared with their digests"
	}
	a.story.add("verified", "", "", "", fmt.Sprintf("%d manifests, and %d blobs %s; %d bytes",
		checked.Manifests, checked.Blobs, how, checked.Bytes))
	return nil
}

// wanted returns what the site should hold by now, in the form of the copies that would bring it, by digest.
func wanted(c comparison, result applied) []plan.Copy {
	steps := map[string]*plan.Copy{}
	for name, manifest := range c.manifests {
		if result.failed[name] {
			continue
		}
		step, seen := steps[manifest.Digest]
		if !seen {
			step = &plan.Copy{Digest: manifest.Digest}
			steps[manifest.Digest] = step
		}
		step.Tags = append(step.Tags, plan.Retag{Name: name, Previous: manifest.Digest})
	}
	list := make([]plan.Copy, 0, len(steps))
	for _, step := range steps {
		slices.SortFunc(step.Tags, func(a, b plan.Retag) int { return cmp.Compare(a.Name, b.Name) })
		list = append(list, *step)
	}
	slices.SortFunc(list, func(a, b plan.Copy) int { return cmp.Compare(a.Tags[0].Name, b.Tags[0].Name) })
	return list
}

func (a *attempt) check(
	ctx context.Context, c comparison, step plan.Copy, seen map[string]bool,
) (transfer.Checked, error) {
	return transfer.Check(ctx, a.Site, a.target, c.manifests[step.Tags[0].Name], transfer.CheckOptions{
		Deep: a.lease.Verify == tracking.Deep,
		// What another graph of the repository has in common with this one was looked at, and mended, there.
		Seen: func(digest string) bool {
			before := seen[digest]
			seen[digest] = true
			return before
		},
	})
}

// mend copies a damaged graph again: first what is missing, and, if that was not it, all of it. It looks again after each.
func (a *attempt) mend(ctx context.Context, c comparison, step plan.Copy, found transfer.Checked) error {
	a.opts.Metrics.damaged()
	for _, damage := range found.Damages {
		a.story.add("damaged", damage.Digest, damage.Digest, "", damage.Problem)
	}
	a.opts.Logger.Warn("the site lacks, or holds damaged, what was synced; copying it again", "side", "destination",
		"repository", a.target, "digest", step.Digest, "problem", found.Damages[0].Problem)
	for _, repair := range []bool{false, true} {
		if err := a.forget(ctx, step.Digest, found); err != nil {
			return err
		}
		done, err := a.copy(ctx, c, step, copying{repair: repair})
		if err != nil {
			return err
		}
		for _, tag := range step.Tags {
			if err := done.TagErrors[tag.Name]; err != nil {
				return err
			}
		}
		if found, err = a.check(ctx, c, step, map[string]bool{}); err != nil {
			return err
		}
		if len(found.Damages) == 0 {
			a.story.add("copied", step.Digest, step.Digest, "", fmt.Sprintf("mended with %d bytes", done.Bytes))
			return nil
		}
	}
	return &registry.Error{
		Side: registry.Destination, Host: a.Site.URL(), Op: "mend", Repository: a.target, Reference: step.Digest,
		Err: fmt.Errorf("%w: %s: %s; registries keep a file that they have: remove its file from the site's registry's storage, and verify again",
			errStillDamaged, found.Damages[0].Digest, found.Damages[0].Problem),
	}
}

// forget takes from the content index what is damaged and all above it, so that it is copied and not taken for granted.
func (a *attempt) forget(ctx context.Context, root string, found transfer.Checked) error {
	digests := []string{root}
	for _, damage := range found.Damages {
		digests = append(digests, damage.Digest)
		digests = append(digests, damage.Parents...)
	}
	if err := a.Tracking.Content().Forget(ctx, a.target, digests...); err != nil {
		return fmt.Errorf("forget what is damaged: %w", err)
	}
	return nil
}
