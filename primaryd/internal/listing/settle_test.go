package listing_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
	"github.com/antipode-registry/antipode/primaryd/internal/listing"
)

// late is a registry whose tag reads as before until some time has passed, as an object store's may.
type late struct {
	before, after []registry.Tag
	at            time.Time
	asked         []time.Duration // how long before at, of each question
	certain       int             // questions whose answer says what is absent
	slow          time.Duration   // how long a glance takes
}

func (l *late) now() []registry.Tag {
	l.asked = append(l.asked, time.Until(l.at))
	if time.Now().Before(l.at) {
		return l.before
	}
	return l.after
}

func (l *late) List(context.Context, string) (registry.Listing, error) {
	return registry.Listing{Present: true, Tags: slices.Clone(l.now())}, nil
}

func (l *late) Resolve(_ context.Context, _ string, names []string) (found []registry.Tag, absent []string, err error) {
	if len(names) == 0 {
		return nil, nil, nil
	}
	l.certain++
	tags := l.now()
	for _, name := range names {
		if i := slices.IndexFunc(tags, func(t registry.Tag) bool { return t.Name == name }); i >= 0 {
			found = append(found, tags[i])
		} else {
			absent = append(absent, name)
		}
	}
	return found, absent, nil
}

func (l *late) Glance(ctx context.Context, repository string, names []string) ([]registry.Tag, error) {
	if len(names) == 0 {
		return nil, nil
	}
	<-time.After(l.slow)
	found, _, err := l.Resolve(ctx, repository, names)
	l.certain--
	return found, err
}

func (*late) Manifest(context.Context, string, string) (registry.Manifest, error) {
	return registry.Manifest{}, registry.ErrNotFound
}

func (*late) Referrers(context.Context, string, string) ([]registry.Descriptor, bool, error) {
	return nil, false, nil
}

func tags(digests ...string) []registry.Tag {
	list := make([]registry.Tag, len(digests))
	for i, digest := range digests {
		list[i] = registry.Tag{Name: string(rune('a' + i)), Digest: digest}
	}
	return list
}

func TestSettle(t *testing.T) {
	t.Parallel()
	pushed := feed.Touch{Tag: "a", Digest: "new"}
	deleted := feed.Touch{Tag: "a", Deleted: true}
	tests := map[string]struct {
		before, after []registry.Tag
		touch         feed.Touch
		delay, age    time.Duration
		want          []registry.Tag
		unsettled     bool
		questions     int
	}{
		"as announced":          {nil, tags("new"), pushed, 0, 0, tags("new"), false, 1},
		"a new tag, soon":       {nil, tags("new"), pushed, 120 * time.Millisecond, 0, tags("new"), false, 3},
		"a moved tag, soon":     {tags("old"), tags("new"), pushed, 20 * time.Millisecond, 0, tags("new"), false, 2},
		"a deleted tag, soon":   {tags("old"), nil, deleted, 300 * time.Millisecond, 0, nil, false, 4},
		"nothing announced":     {tags("old"), tags("new"), feed.Touch{Tag: "a"}, time.Hour, 0, tags("old"), false, 1},
		"not yet":               {tags("old"), tags("new"), pushed, time.Hour, 0, tags("old"), true, 5},
		"not there yet":         {nil, tags("new"), pushed, time.Hour, 0, nil, true, 5},
		"not gone yet":          {tags("old"), nil, deleted, time.Hour, 0, tags("old"), true, 5},
		"announced long ago":    {tags("old"), tags("new"), pushed, time.Hour, time.Minute, tags("old"), false, 1},
		"gone, pushed long ago": {nil, tags("new"), pushed, time.Hour, time.Minute, nil, false, 1},
	}
	for name, test := range tests {
		for _, complete := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := startFeed(t)
					var revisions [2]int64
					for i, touch := range []feed.Touch{{Tag: "z", Deleted: true}, test.touch} {
						var err error
						change := feed.Change{Repository: "r", Tags: []feed.Touch{touch}}
						if revisions[i], err = f.Append(t.Context(), change); err != nil {
							t.Fatal(err)
						}
					}
					<-time.After(test.age)
					since := revisions[0]
					if complete {
						since = 0
					}
					source := &late{before: test.before, after: test.after, at: time.Now().Add(test.delay)}
					got, err := listing.New(source, f).List(t.Context(), "r", f.ID(), feed.Cursor{Revision: since})
					if err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(test.want, got.Tags); diff != "" || got.Complete != complete {
						t.Error(got.Complete, diff)
					}
					if unsettled := slices.Equal(got.Unsettled, []string{"a"}); unsettled != test.unsettled {
						t.Errorf("unsettled %v", got.Unsettled)
					}
					if len(source.asked) != test.questions {
						t.Errorf("asked %d times: %v", len(source.asked), source.asked)
					}
					if gone := slices.Contains(got.Absent, "a"); gone != (!complete && len(test.want) == 0) {
						t.Errorf("absent %v", got.Absent)
					}
				})
			})
		}
	}
}

// A caller that leaves while a tag settles does not wait for it.
func TestSettlingEndsWithTheCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := startFeed(t)
		touch := feed.Touch{Tag: "a", Digest: "new"}
		if _, err := f.Append(t.Context(), feed.Change{Repository: "r", Tags: []feed.Touch{touch}}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, err := listing.New(&late{at: time.Now().Add(time.Hour)}, f).List(ctx, "r", "", feed.Cursor{})
		if err == nil || time.Since(began) != 200*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// That an announced tag is not there is believed only after it was made sure of, even where the time in which an
// announcement counts ends between the two questions.
func TestGlancesConcludeNothing(t *testing.T) {
	t.Parallel()
	for _, age := range []time.Duration{0, time.Minute - time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			f := startFeed(t)
			var since int64
			for i, touch := range []feed.Touch{{Tag: "z", Deleted: true}, {Tag: "a", Digest: "new"}} {
				head, err := f.Append(t.Context(), feed.Change{Repository: "r", Tags: []feed.Touch{touch}})
				if err != nil {
					t.Fatal(err)
				}
				if i == 0 {
					since = head
				}
			}
			<-time.After(age)
			source := &late{at: time.Now().Add(time.Hour), slow: 2 * time.Millisecond}
			got, err := listing.New(source, f).List(t.Context(), "r", f.ID(), feed.Cursor{Revision: since})
			if err != nil || !slices.Equal(got.Absent, []string{"a"}) || source.certain == 0 {
				t.Errorf("after %s: absent %v, %d certain answers, %v", age, got.Absent, source.certain, err)
			}
		})
	}
}
