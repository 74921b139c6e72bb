package replicate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// unknown is the tag count of an outcome that does not know it.
const unknown = -1

// rounds bounds how often one sync lists again: because what it was copying vanished at the source meanwhile, or because
// a new repository has to be there before the site can be asked about referrers. A digest that is still listed and
// still not there after that is a failure.
const rounds = 3

// giveBackWithin bounds how long the end of a sync waits for the site's brake.
const giveBackWithin = 5 * time.Second

// settleWait is how soon a repository is looked at again whose listing was not settled.
const settleWait = 2 * time.Second

// attempt is one sync of one claimed repository.
type attempt struct {
	*Engine
	lister Primary // who lists the primary's registry: primaryd, but for a comparison without it
	lease  *tracking.Lease
	work   *Active
	story  journal
	// target is the repository's name on the site.
	target string
	// tags and sum are the site's as far as is known, kept up with every write; tags is unknown, or sum nil, else.
	tags int64
	sum  *plan.Sum
	// damaged says that a check found damage which was not mended.
	damaged bool
}

// sync makes the site's repository equal to the primary's and says what came of it.
func (e *Engine) sync(ctx context.Context, lease *tracking.Lease, work *Active) tracking.Outcome {
	a := newAttempt(e, lease)
	a.work = work
	if a.urgent() {
		ctx = registry.WithUrgency(ctx)
	}
	for round := 1; ; round++ {
		c, err := a.compare(ctx)
		if err != nil {
			return a.counted(a.story.failed(lease.Repository, err))
		}
		if err := a.forgetLost(ctx, c); err != nil {
			return a.counted(a.story.failed(lease.Repository, err))
		}
		reserved, err := a.brakeSite(ctx, &c)
		if err != nil {
			return a.counted(a.story.failed(lease.Repository, err))
		}
		work.plan(c.plan)
		result := a.apply(ctx, c)
		a.giveBack(ctx, reserved-result.planned)
		if (result.vanished || c.again && len(result.errs) == 0) && round < rounds && ctx.Err() == nil {
			continue
		}
		if err := a.verify(ctx, c, result); err != nil {
			result.errs = append(result.errs, err)
		}
		return a.conclude(ctx, c, result)
	}
}

// forgetLost forgets what a repository held that was synced before and that the site's registry does not know any more.
func (a *attempt) forgetLost(ctx context.Context, c comparison) error {
	if !c.lost || a.lease.Synced == 0 {
		return nil
	}
	if err := a.Tracking.Content().DropRepository(ctx, a.target); err != nil {
		return fmt.Errorf("forget what %s held: %w", a.target, err)
	}
	return nil
}

// brakeSite withholds the planned removals if the whole site removes too much, and says how many it counted towards that.
// What an operator released goes ahead.
func (a *attempt) brakeSite(ctx context.Context, c *comparison) (reserved int64, err error) {
	if c.plan.Held != "" {
		a.opts.Metrics.braked("repository")
	}
	n := int64(len(c.plan.Removals))
	if n == 0 || a.lease.Released {
		return 0, nil
	}
	refusal, err := a.Tracking.ReserveRemovals(ctx, n, a.opts.SiteBrake)
	if err != nil {
		return 0, fmt.Errorf("ask for the site's brake: %w", err)
	}
	if refusal != "" {
		c.plan = c.plan.Withhold(refusal)
		a.opts.Metrics.braked("site")
		return 0, nil
	}
	return n, nil
}

// giveBack takes from the site's brake what was counted and not removed: a removal that fails all day long must not
// hold those of others.
func (a *attempt) giveBack(ctx context.Context, n int64) {
	if n <= 0 {
		return
	}
	ctx = tracking.UnderLease(context.WithoutCancel(ctx), nil) // a lost lease has not removed anything either
	ctx, cancel := context.WithTimeout(ctx, giveBackWithin)
	defer cancel()
	if err := a.Tracking.ReturnRemovals(ctx, n); err != nil {
		a.opts.Logger.WarnContext(ctx, "removals that were not made still count for the site's brake", "side", sideLocal,
			"repository", a.lease.Repository, "error", err)
	}
}

// conclude turns what was done into the outcome.
func (a *attempt) conclude(ctx context.Context, c comparison, result applied) tracking.Outcome {
	if err := a.dropPins(ctx, c); err != nil {
		result.errs = append(result.errs, err)
	}
	outcome := tracking.Outcome{}
	switch {
	case len(result.errs) > 0:
		outcome = a.story.failed(a.lease.Repository, result.err())
		outcome.Held = c.plan.Held
	case len(c.listing.Unsettled) > 0:
		// Before a hold: a held repository is not looked at again, and would miss them.
		outcome.Retry = settleWait
		a.story.add("unsettled", c.listing.Unsettled[0], "", "",
			fmt.Sprintf("%d tags do not yet read as announced at the primary", len(c.listing.Unsettled)))
	case c.plan.Held != "":
		outcome.Held = c.plan.Held
		a.story.add("held", "", "", "", c.plan.Held)
	default:
		outcome.Synced = true
		a.story.add("synced", "", "", "", fmt.Sprintf("revision %d: %d written, %d removed, %d kept, %d were equal",
			a.lease.Wanted, result.written, result.removed, len(c.plan.Kept), c.plan.Equal))
	}
	outcome.Journal, outcome.Damaged = a.story.entries, a.damaged
	return a.counted(outcome)
}

// counted adds what the site now holds to an outcome, whatever that is: the next sync goes on from there.
func (a *attempt) counted(outcome tracking.Outcome) tracking.Outcome {
	outcome.TagCount = a.tags
	if a.sum != nil {
		outcome.Sum = a.sum.String()
	}
	return outcome
}

// dropPins lets go of restored tags that the primary has again.
func (a *attempt) dropPins(ctx context.Context, c comparison) error {
	var errs []error
	for _, tag := range c.obsoletePins {
		errs = append(errs, a.Tracking.DropPin(ctx, a.lease.Repository, tag))
	}
	return errors.Join(errs...)
}

// urgent says whether the sync goes before a backfill's where they wait for a turn. A verification reads everything, and
// can wait.
func (a *attempt) urgent() bool {
	return a.lease.Class == tracking.Live && a.lease.Verify == tracking.TagsOnly
}

func newAttempt(e *Engine, lease *tracking.Lease) *attempt {
	a := &attempt{Engine: e, lister: e.Primary, lease: lease, target: e.opts.Target(lease.Repository), tags: lease.TagCount}
	if sum, err := plan.ParseSum(lease.Sum); err == nil {
		a.sum = &sum
	}
	return a
}

// listed begins the count anew from a complete listing of the site.
func (a *attempt) listed(tags []plan.Tag) {
	sum := plan.SumOf(tags)
	a.tags, a.sum = int64(len(tags)), &sum
}

// lostCount notes that a write to the site may or may not have been made: the next sync lists the site's tags to know.
func (a *attempt) lostCount() { a.sum = nil }

// wrote keeps the count up with a tag that was written or removed; an empty digest stands for no tag.
func (a *attempt) wrote(tag, before, after string) {
	if !isTag(tag) {
		return
	}
	for digest, change := range map[string]int64{before: -1, after: 1} {
		if digest == "" {
			continue
		}
		if a.tags != unknown {
			a.tags = max(0, a.tags+change)
		}
		if a.sum != nil {
			sum := a.sum.Toggle(plan.Tag{Name: tag, Digest: digest})
			a.sum = &sum
		}
	}
}

// Diff returns what a sync of the repository would do now, by a complete listing of both sides. It changes nothing.
func (e *Engine) Diff(ctx context.Context, repository string) (plan.Plan, error) {
	lease := &tracking.Lease{Repository: repository, TagCount: unknown}
	if row, found, err := e.Tracking.Get(ctx, repository); err != nil {
		return plan.Plan{}, err
	} else if found {
		lease.Held, lease.Released = row.HeldReason, row.Released
	}
	c, err := newAttempt(e, lease).compare(ctx)
	if err != nil || lease.Released {
		return c.plan, err
	}
	refusal, err := e.Tracking.RefuseRemovals(ctx, int64(len(c.plan.Removals)), e.opts.SiteBrake)
	if refusal != "" {
		c.plan = c.plan.Withhold(refusal)
	}
	return c.plan, err
}
