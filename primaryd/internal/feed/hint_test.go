package feed

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestHintCoversHistory compares hints with the whole history of a repository: whoever is covered by a hint finds in it
// every tag that was touched since.
func TestHintCoversHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type commit struct {
			revision int64
			change   merged
		}
		var history []commit
		var hint Hint
		var revision int64
		now := time.UnixMilli(1_000_000).UTC()
		for range rapid.IntRange(1, 60).Draw(t, "commits") {
			previous := revision
			revision += rapid.Int64Range(1, 5).Draw(t, "others")
			change := drawChange(t, now)
			hint = hint.next(previous, revision, change)
			history = append(history, commit{revision, change})
			check(t, hint, revision)
			for _, since := range append([]int64{0, previous, hint.Base}, history[0].revision, revision) {
				if !hint.Covers(since) {
					continue
				}
				for _, past := range history {
					if past.revision <= since {
						continue
					}
					if past.change.unknown {
						t.Fatalf("covers %d, but revision %d was unknown", since, past.revision)
					}
					for tag := range past.change.touches {
						if !(Hint{Touches: hint.After(since)}).names(tag) {
							t.Fatalf("covers %d, but lacks %s of revision %d", since, tag, past.revision)
						}
					}
				}
			}
		}
	})
}

func drawChange(t *rapid.T, now time.Time) merged {
	change := merged{touches: map[string]Touch{}}
	if rapid.IntRange(0, 9).Draw(t, "unknown") == 0 {
		change.unknown = true
	}
	most := rapid.SampledFrom([]int{1, 1, 1, 3, 20, 40}).Draw(t, "most")
	for range rapid.IntRange(1, most).Draw(t, "touches") {
		tag := fmt.Sprint("t", rapid.IntRange(0, 60).Draw(t, "tag"))
		at := now.Add(time.Duration(rapid.IntRange(-1000, 0).Draw(t, "ago")) * time.Second)
		change.touches[tag] = Touch{Tag: tag, At: at, Deleted: rapid.Bool().Draw(t, "deleted")}
	}
	return change
}

// check looks at what holds for any hint.
func check(t *rapid.T, h Hint, revision int64) {
	if h.Covers(0) || h.Base > revision || h.Base < 0 || len(h.Touches) > hintTouches {
		t.Fatalf("hint %+v at %d", h, revision)
	}
	if !h.Covers(revision) {
		t.Fatalf("hint %+v does not cover its own revision %d", h, revision)
	}
	for i := 1; i < len(h.Touches); i++ {
		if h.Touches[i-1].Tag >= h.Touches[i].Tag {
			t.Fatalf("touches out of order: %+v", h.Touches)
		}
	}
	text, err := h.encode()
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := decodeHint(text)
	if err != nil || !cmp.Equal(h, decoded) {
		t.Fatalf("%v: %s", err, cmp.Diff(h, decoded))
	}
}

func (h Hint) names(tag string) bool {
	for _, touch := range h.Touches {
		if touch.Tag == tag {
			return true
		}
	}
	return false
}

func touches(list ...Touch) merged {
	change := merged{touches: map[string]Touch{}}
	for _, touch := range list {
		change.touches[touch.Tag] = touch
	}
	return change
}

func many(first, count int) merged {
	var list []Touch
	for i := range count {
		list = append(list, Touch{Tag: fmt.Sprintf("t%03d", first+i), At: time.UnixMilli(int64(first + i)).UTC()})
	}
	return touches(list...)
}

func TestHintNext(t *testing.T) {
	full := Hint{}.next(0, 5, many(0, hintTouches))
	for _, test := range []struct {
		name     string
		hint     Hint
		previous int64
		change   merged
		base     int64
		touches  int
	}{
		{"new row", Hint{}, 0, many(0, 2), 9, 2},
		{"new row, too many", Hint{}, 0, many(0, 40), 10, 32},
		{"unknown", full, 5, merged{unknown: true}, 10, 0},
		{"unknown with touches", full, 5, merged{unknown: true, touches: many(0, 3).touches}, 10, 0},
		{"after unknown", Hint{Base: 5}, 5, many(0, 1), 5, 1},
		{"same tags", full, 5, many(0, 3), 4, 32},
		{"overflow", full, 5, many(100, 3), 5, 3},
		{"too many at once", full, 5, many(100, 33), 10, 32},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := test.hint.next(test.previous, 10, test.change)
			if got.Base != test.base || len(got.Touches) != test.touches {
				t.Errorf("base %d, %d touches; want %d, %d", got.Base, len(got.Touches), test.base, test.touches)
			}
		})
	}
}

func TestTheNewestEventOfATagStays(t *testing.T) {
	old, recent := time.UnixMilli(1000).UTC(), time.UnixMilli(2000).UTC()
	have := Hint{Base: 1, Touches: []Touch{{Tag: "v", Digest: "new", At: recent}}}
	for name, test := range map[string]struct {
		touch Touch
		want  string
	}{
		"delivered again, late": {Touch{Tag: "v", Digest: "old", At: old}, "new"},
		"same time":             {Touch{Tag: "v", Digest: "later", At: recent}, "later"},
		"newer":                 {Touch{Tag: "v", Digest: "newer", At: recent.Add(1)}, "newer"},
	} {
		if got := have.next(2, 3, touches(test.touch)).Touches[0].Digest; got != test.want {
			t.Errorf("%s: %q stays, want %q", name, got, test.want)
		}
	}
}

func TestTimesToComeAreNow(t *testing.T) {
	now := time.UnixMilli(5000).UTC()
	change := Change{Repository: "a", At: now.Add(time.Hour), Tags: []Touch{
		{Tag: "ahead", At: now.Add(time.Hour)}, {Tag: "past", At: now.Add(-time.Hour)}, {Tag: "none"},
	}}
	got := merged{}.with(change, now)
	if !got.at.Equal(now) || !got.touches["ahead"].At.Equal(now) || !got.touches["none"].At.Equal(now) ||
		!got.touches["past"].At.Equal(now.Add(-time.Hour)) {
		t.Errorf("%+v", got)
	}
}
