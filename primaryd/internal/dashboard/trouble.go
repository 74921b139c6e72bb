package dashboard

import (
	"fmt"
	"slices"

	"github.com/antipode-registry/antipode/primaryd/internal/node"
)

// What lists every repository of a state, on the site.
const (
	listFailed = "secondaryd repositories --state failed"
	listHeld   = "secondaryd repositories --state held"
)

// trouble is a repository that failed or is held, with what to do about it.
type trouble struct {
	node.Troubled
	Remedies []remedy // none for a name that cannot stand in a command
}

// troubles are the first of a site's, and how to list the others.
type troubles struct {
	Site      string
	List      []trouble
	More      []remedy
	FormToken string // for the buttons beside each; empty where there are none
}

// troubled are the repositories that the site names, unless its last report is too old to go by, or the site follows no
// more.
func troubled(n node.Node) []trouble {
	if n.State != node.Degraded && n.State != node.Paused {
		return nil
	}
	var list []trouble
	for _, repository := range n.Status.Troubled {
		list = append(list, newTrouble(repository))
	}
	return list
}

func newTrouble(repository node.Troubled) trouble {
	t := trouble{Troubled: repository}
	if !isRepository(t.Name) {
		return t
	}
	t.Remedies = []remedy{{Text: "What happened:", Command: "secondaryd explain " + t.Name}}
	if !t.Held {
		t.Remedies = append(t.Remedies, remedy{Text: "Try it now:", Command: "secondaryd resync " + t.Name})
		return t
	}
	t.Remedies = append(t.Remedies,
		remedy{Text: "What would be removed:", Command: "secondaryd diff " + t.Name},
		remedy{Text: "Let that happen:", Command: "secondaryd release " + t.Name})
	return t
}

// Troubles returns at most that many repositories that failed or are held.
func (s *site) Troubles(most int) troubles {
	shown := pick(s.troubled, most)
	t := troubles{Site: s.Name, List: shown}
	if len(shown) == 0 {
		return t
	}
	failed, held := s.Status.Repositories.Failed, s.Status.Repositories.Held
	for _, repository := range shown {
		if repository.Held {
			held--
		} else {
			failed--
		}
	}
	if held > 0 {
		t.More = append(t.More, remedy{Text: fmt.Sprintf("and %d more held:", held), Command: listHeld})
	}
	if failed > 0 {
		t.More = append(t.More, remedy{Text: fmt.Sprintf("and %d more failed:", failed), Command: listFailed})
	}
	return t
}

// pick takes at most that many: what failed first, for it may be news, and room for what is held.
func pick(all []trouble, most int) []trouble {
	held, failed := byKind(all)
	failed = failed[:min(len(failed), max(most-len(held), most-most/2))]
	return append(failed, held[:min(len(held), most-len(failed))]...)
}

func byKind(all []trouble) (held, failed []trouble) {
	for _, t := range all {
		if t.Held {
			held = append(held, t)
		} else {
			failed = append(failed, t)
		}
	}
	return held, failed
}

// Mendable is Troubles with buttons beside each repository, for those who may control.
func (s *site) Mendable(most int, control bool, formToken string) troubles {
	t := s.Troubles(most)
	if control {
		t.FormToken = formToken
	}
	return t
}

// lists says whether a repository is among those that the site names.
func (s *site) lists(repository string) bool {
	return slices.ContainsFunc(s.troubled, func(t trouble) bool { return t.Name == repository })
}

// Newest is the newest failure, unless it is told among the repositories.
func (s *site) Newest() *node.SyncError {
	if s.Status == nil || s.Status.LastError == nil || s.lists(s.Status.LastError.Repository) {
		return nil
	}
	return s.Status.LastError
}

// reasons are the node's, less the sentence about a failure that is told among the repositories.
func (s *site) reasons() []string {
	if s.Status == nil || s.Newest() != nil {
		return s.Reasons
	}
	told := s.Status.LastError.Sentence()
	return slices.DeleteFunc(slices.Clone(s.Reasons), func(reason string) bool { return reason == told })
}
