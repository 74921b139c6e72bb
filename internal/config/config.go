// Package config reads a daemon's YAML file.
//
// It guarantees that every problem of a file comes in one error, each with file, line and key in words for people, that
// a key which nobody reads is a problem, and that keys which are missing keep the defaults they have.
//
// It refuses duplicate keys, aliases and merge keys, more than one document, and files over a mebibyte. Nothing is
// taken from the environment: the file says it all.
package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFileBytes is far beyond any config and keeps a wrong path, such as a disk image, out of memory.
const maxFileBytes = 1 << 20

// Error lists what is wrong with a file, by line.
type Error struct {
	Problems []Problem
}

// Error returns one line per problem.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, problem := range e.Problems {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// Problem is one thing to correct.
type Problem struct {
	File    string
	Line    int    // from 1; of the nearest key above it for a key that is missing
	Key     string // such as nodes[1].repositories[0]; empty for the file as a whole
	Message string
}

// String returns "file:line: key: message".
func (p Problem) String() string {
	text := fmt.Sprintf("%s:%d: ", p.File, p.Line)
	if p.Key != "" {
		text += p.Key + ": "
	}
	return text + p.Message
}

// Load reads the YAML file at path into the struct that into points to, whose yaml tags are the known keys and whose
// values are the defaults. A list or map in the file replaces the default one; a key without a value counts as missing.
// Check, if not nil, adds what the types cannot say; it runs whenever the file was YAML at all, and what it says of a
// value that could not be read is left out. The error is an *Error unless the file could not be read. After an error
// the contents of into are not to be used.
func Load(path string, into any, check func(*Problems)) error {
	target := reflect.ValueOf(into)
	if target.Kind() != reflect.Pointer || target.IsNil() || target.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("config: cannot load into %T, only into a pointer to a struct", into)
	}
	content, err := readFile(path)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	problems := &Problems{file: path, lines: map[string]int{"": 1}, unread: map[string]bool{}}
	if root := parse(content, problems); root != nil {
		problems.lines[""] = root.Line
		decoder{problems}.value("", root, target.Elem())
		if check != nil {
			problems.checking = true
			check(problems)
		}
	}
	return problems.err()
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	if len(content) > maxFileBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes; is it a config file?", path, maxFileBytes)
	}
	return content, nil
}

// parse returns the mapping at the root of the first document, or nil when there is none to go on with.
func parse(content []byte, problems *Problems) *yaml.Node {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document yaml.Node
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) || err == nil && isNull(document.Content[0]) {
		problems.add(1, "", "the file is empty")
		return nil
	}
	if err != nil {
		addSyntax(problems, err)
		return nil
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		problems.add(root.Line, "", "expected keys with values, got "+describe(root))
		return nil
	}
	var second yaml.Node
	switch err := decoder.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		addSyntax(problems, err)
	default:
		problems.add(second.Line, "", "a second document begins here; put everything into one")
	}
	return root
}

// addSyntax words an error of the YAML parser, which has the line in its text only.
func addSyntax(problems *Problems, err error) {
	line, message := 1, strings.TrimPrefix(err.Error(), "yaml: ")
	if parts := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(message); parts != nil {
		if n, err := strconv.Atoi(parts[1]); err == nil {
			line, message = n, message[len(parts[0]):]
		}
	}
	if strings.Contains(message, "cannot start any token") {
		message += " (YAML is indented with spaces, not tabs)"
	}
	problems.add(line, "", "not valid YAML: "+message)
}

// Problems collects what is wrong. It is not safe for concurrent use.
type Problems struct {
	file     string
	lines    map[string]int  // of each key that the file has
	unread   map[string]bool // keys whose value could not be taken
	checking bool
	list     []Problem
}

// Add reports a problem with a key such as "grpc.listen" or "nodes[1].repositories[0]"; "" is the file as a whole. A
// key that is missing from the file is reported at the line of the nearest one above it.
func (p *Problems) Add(key, format string, args ...any) {
	for at := key; p.checking; at = parent(at) {
		if p.unread[at] {
			return
		}
		if at == "" {
			break
		}
	}
	p.add(p.line(key), key, fmt.Sprintf(format, args...))
}

func (p *Problems) add(line int, key, message string) {
	problem := Problem{File: p.file, Line: line, Key: key, Message: message}
	if !slices.Contains(p.list, problem) {
		p.list = append(p.list, problem)
	}
}

func (p *Problems) line(key string) int {
	for {
		if line, ok := p.lines[key]; ok {
			return line
		}
		key = parent(key)
	}
}

// parent cuts the last element off a key; that of a first element is "".
func parent(key string) string {
	return key[:max(strings.LastIndexAny(key, ".["), 0)]
}

func (p *Problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	slices.SortStableFunc(p.list, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return &Error{Problems: p.list}
}
