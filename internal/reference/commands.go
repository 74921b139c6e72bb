package reference

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// common are the flags that every query has, which a reference describes once.
var common = []string{"address", "ca", "cert", "config", "key", "output"}

// CheckCommands compares a command tree with a reference, which has a row for each command that runs, with the columns
// Command ("serve", "pki init") and Flags: all but --help, --version and those that queries have in common.
func CheckCommands(document string, rows []Row, root *cobra.Command) []string {
	stated := make(map[string][]string, len(rows))
	documented := make([]string, len(rows))
	for i, row := range rows {
		documented[i] = bare(root, Code(row.Cells["Command"]))
		stated[documented[i]] = flagNames(row.Cells["Flags"])
	}
	var names, problems []string
	for _, cmd := range leaves(root) {
		name := strings.TrimPrefix(cmd.CommandPath(), root.Name()+" ")
		names = append(names, name)
		own := ownFlags(cmd)
		if found, ok := stated[name]; ok && !slices.Equal(found, own) {
			problems = append(problems, fmt.Sprintf("%s gives %s the flags %q, the code has %q", document, name, found, own))
		}
	}
	return append(problems, Differences(document, documented, names)...)
}

// bare strips the program's name and the arguments: "secondaryd explain REPOSITORY" is "explain".
func bare(root *cobra.Command, usage string) string {
	usage = strings.TrimPrefix(usage, root.Name()+" ")
	words := strings.Fields(usage)
	end := slices.IndexFunc(words, func(word string) bool { return !regexp.MustCompile(`^[a-z]+$`).MatchString(word) })
	if end >= 0 {
		words = words[:end]
	}
	return strings.Join(words, " ")
}

// leaves returns the commands that run, but for cobra's own.
func leaves(root *cobra.Command) []*cobra.Command {
	var list []*cobra.Command
	for _, cmd := range root.Commands() {
		switch {
		case cmd.Name() == "help" || cmd.Name() == "completion":
		case cmd.HasSubCommands():
			list = append(list, leaves(cmd)...)
		default:
			list = append(list, cmd)
		}
	}
	return list
}

func ownFlags(cmd *cobra.Command) []string {
	own := []string{}
	usages := regexp.MustCompile(`(?m)^ +(?:-\w, )? *--([a-z-]+)`)
	for _, found := range usages.FindAllStringSubmatch(cmd.LocalFlags().FlagUsages(), -1) {
		if name := found[1]; name != "help" && name != "version" && !slices.Contains(common, name) {
			own = append(own, name)
		}
	}
	slices.Sort(own)
	return own
}

// flagNames returns the flags that a cell's code spans name, without the dashes, sorted.
func flagNames(cell string) []string {
	names := []string{}
	for _, span := range spans(cell) {
		name, _, _ := strings.Cut(strings.TrimLeft(span, "-"), " ")
		names = append(names, name)
	}
	return names
}

// CheckUses looks for command lines of the program in a document's code, spans and blocks alike, and says which name a
// command or a flag that it does not have.
func CheckUses(path string, root *cobra.Command) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reference: %w", err)
	}
	var problems []string
	fenced := false
	for i, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		code := []string{line}
		if !fenced {
			code = spans(line)
		}
		for _, use := range uses(code, root.Name()) {
			if problem := checkUse(root, use); problem != "" {
				problems = append(problems, fmt.Sprintf("%s:%d: %s", path, i+1, problem))
			}
		}
	}
	return problems, nil
}

// uses finds what follows the program's name where it is a command: at the beginning, after a prompt, a path or a
// variable, or after one of the shell's operators.
func uses(code []string, program string) [][]string {
	start := regexp.MustCompile(`(?:^|[;|&($] *|/bin/|sudo )` + program + ` ([^|;&)>]*)`)
	var list [][]string
	for _, text := range code {
		for _, found := range start.FindAllStringSubmatch(strings.TrimSpace(text), -1) {
			list = append(list, strings.Fields(found[1]))
		}
	}
	return list
}

func checkUse(root *cobra.Command, words []string) string {
	if len(words) == 0 || !regexp.MustCompile(`^[a-z]+$`).MatchString(words[0]) {
		return "" // a flag of the program itself, or a placeholder
	}
	if words[0] == "help" || words[0] == "completion" {
		return "" // cobra adds them when the program runs
	}
	cmd, _, err := root.Find(words)
	if err != nil || cmd == root {
		return fmt.Sprintf("%s has no command %q", root.Name(), words[0])
	}
	for _, word := range words {
		name, long := strings.CutPrefix(word, "--")
		name, _, _ = strings.Cut(strings.TrimRight(name, ".,]"), "=")
		if long && name != "" && name != "help" && cmd.Flags().Lookup(name) == nil {
			return fmt.Sprintf("%s has no flag --%s", cmd.CommandPath(), name)
		}
	}
	return ""
}
