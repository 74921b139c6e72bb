package transfer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// line enters names in this order, "U..." as urgent, and then releases held and slot after slot. It returns in which
// order they were granted.
func line(s *slots, held *slot, names ...string) string {
	waiting, order := map[string]*slot{}, []string{}
	for _, name := range names {
		waiting[name] = s.enter(strings.HasPrefix(name, "U"))
	}
	s.release(held)
	for len(waiting) > 0 {
		for _, name := range names {
			if own := waiting[name]; own != nil && own.granted() {
				order = append(order, name)
				delete(waiting, name)
				s.release(own)
			}
		}
	}
	return strings.Join(order, " ")
}

func TestSlotsOrder(t *testing.T) {
	t.Parallel()
	s := newSlots(1, 1)
	held := s.enter(false)
	if kept := s.enter(true); !kept.granted() || !kept.reserved {
		t.Error("the reserve is not for urgent ones")
	}
	if s.enter(false).granted() || s.enter(true).granted() {
		t.Error("more than there are")
	}
	s.release(held) // goes to the urgent one
	if s.urgent.Len() != 0 || s.others.Len() != 1 {
		t.Errorf("%d urgent and %d others wait", s.urgent.Len(), s.others.Len())
	}
}

func TestSlotsStarveNobody(t *testing.T) {
	t.Parallel()
	s := newSlots(1, 0)
	held := s.enter(false)
	names := []string{"o0", "o1"}
	for i := range 17 {
		names = append(names, fmt.Sprint("U", i))
	}
	got := line(s, held, names...)
	first, second := position(got, "o0"), position(got, "o1")
	if first > 7 || second > 15 {
		t.Errorf("others come at %d and %d of %s", first, second, got)
	}
}

func position(order, name string) int {
	for i, one := range strings.Fields(order) {
		if one == name {
			return i
		}
	}
	return -1
}

func TestPromotedSlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(1, 1)
		held, hurry := s.enter(false), make(chan struct{})
		done := make(chan *slot, 1)
		go func() {
			own, err := s.acquire(t.Context(), false, hurry)
			if err != nil {
				t.Error(err)
			}
			done <- own
		}()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("granted too early")
		default:
		}
		close(hurry)
		own := <-done
		if !own.urgent || !own.reserved {
			t.Errorf("%+v is not of the reserve", own)
		}
		s.promote(own) // granted already: nothing happens
		s.release(own)
		s.release(held)
		if s.common != 1 || s.reserve != 1 {
			t.Errorf("%d and %d are free in the end", s.common, s.reserve)
		}
	})
}

// TestSlotsAreNeitherLostNorMultiplied lets many take, give up and be promoted at the same time.
func TestSlotsAreNeitherLostNorMultiplied(t *testing.T) {
	t.Parallel()
	const common, reserve = 3, 2
	s := newSlots(common, reserve)
	var mu sync.Mutex
	var inUse, reserved int
	count := func(own *slot, by int) {
		mu.Lock()
		defer mu.Unlock()
		inUse += by
		if own.reserved {
			reserved += by
		}
		if inUse > common+reserve || reserved > reserve {
			t.Errorf("%d in use, %d of the reserve", inUse, reserved)
		}
	}
	var group sync.WaitGroup
	for i := range 200 {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 1))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			hurry := make(chan struct{})
			switch random.IntN(3) {
			case 0:
				group.Go(cancel)
			case 1:
				group.Go(func() { close(hurry) })
			}
			own, err := s.acquire(ctx, random.IntN(2) == 0, hurry)
			if err != nil {
				return
			}
			count(own, 1)
			count(own, -1)
			s.release(own)
		})
	}
	group.Wait()
	if s.common != common || s.reserve != reserve || s.urgent.Len()+s.others.Len() != 0 {
		t.Errorf("%d and %d are free in the end, %d wait", s.common, s.reserve, s.urgent.Len()+s.others.Len())
	}
}
