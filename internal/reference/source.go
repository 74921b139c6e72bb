package reference

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// check is what a daemon's checks say of a key.
type check struct {
	kind     string
	limits   string
	required bool
}

// source is what a package's files say of its settings.
type source struct {
	comments map[string]string // of a field, as struct.field
	checks   map[string]check  // by key
}

// parse reads a package's files but its tests. Checks are those calls of the Check methods that name their key in full;
// one inside of an if is about a key that may be left out.
func parse(dir string) (*source, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, fmt.Errorf("reference: %w", err)
	}
	s := &source{comments: map[string]string{}, checks: map[string]check{}}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return nil, fmt.Errorf("reference: %w", err)
		}
		s.read(file)
	}
	return s, nil
}

func (s *source) read(file *ast.File) {
	optional := map[ast.Node]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.TypeSpec:
			if fields, ok := n.Type.(*ast.StructType); ok {
				s.readFields(n.Name.Name, fields)
			}
		case *ast.IfStmt:
			ast.Inspect(n.Body, func(inner ast.Node) bool { optional[inner] = true; return true })
		case *ast.CallExpr:
			s.readCheck(n, optional[n])
		}
		return true
	})
}

func (s *source) readFields(name string, fields *ast.StructType) {
	for _, field := range fields.Fields.List {
		for _, id := range field.Names {
			s.comments[name+"."+id.Name] = field.Doc.Text()
		}
	}
}

func (s *source) readCheck(call *ast.CallExpr, optional bool) {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || len(call.Args) < 2 {
		return
	}
	if key, isText := text(call.Args[0]); isText {
		if c, known := describe(method.Sel.Name, call.Args[2:]); known {
			c.required = c.required && !optional
			s.checks[key] = c
		}
	}
}

// describe puts a check into words.
func describe(method string, bounds []ast.Expr) (check, bool) {
	known := map[string]check{
		"CheckAddress":    {kind: "address", limits: "host:port", required: true},
		"CheckDatabase":   {kind: "text", limits: "`sqlite:PATH`, `postgres://...` or `postgresql://...`"},
		"CheckFile":       {kind: "path", limits: "a readable file", required: true},
		"CheckListen":     {kind: "address", limits: "host:port; port 0 picks one"},
		"CheckName":       {kind: "name", required: true},
		"CheckRate":       {kind: "size", limits: "0, or at least 1KiB"},
		"CheckRepository": {kind: "text", limits: "a repository's name"},
		"CheckURL":        {kind: "URL", limits: "scheme, host and port alone", required: true},
	}
	switch method {
	case "CheckNumber":
		return check{kind: "number", limits: between(bounds, func(n int64) string { return strconv.FormatInt(n, 10) })}, true
	case "CheckBetween":
		return check{kind: "time", limits: between(bounds, func(n int64) string { return short(time.Duration(n)) })}, true
	case "CheckOneOf":
		var words []string
		for _, bound := range bounds {
			if word, ok := text(bound); ok {
				words = append(words, word)
			}
		}
		return check{kind: "word", limits: codes(words)}, true
	}
	c, ok := known[method]
	return c, ok
}

func between(bounds []ast.Expr, format func(int64) string) string {
	least, lowOK := number(bounds[0])
	most, highOK := number(bounds[1])
	if !lowOK || !highOK {
		return ""
	}
	return format(least) + " to " + format(most)
}

func text(e ast.Expr) (string, bool) {
	literal, ok := e.(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return "", false
	}
	value, err := strconv.Unquote(literal.Value)
	return value, err == nil
}

// number computes a bound: whole numbers and the units of package time, multiplied or shifted.
func number(e ast.Expr) (int64, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		n, err := strconv.ParseInt(e.Value, 0, 64)
		return n, err == nil
	case *ast.SelectorExpr:
		units := map[string]time.Duration{
			"Millisecond": time.Millisecond, "Second": time.Second, "Minute": time.Minute, "Hour": time.Hour,
		}
		unit, ok := units[e.Sel.Name]
		return int64(unit), ok
	case *ast.BinaryExpr:
		x, xOK := number(e.X)
		y, yOK := number(e.Y)
		if e.Op == token.MUL {
			return x * y, xOK && yOK
		}
		return x << y, e.Op == token.SHL && xOK && yOK
	}
	return 0, false
}

// short is a time without the units that are 0: 1h for 1h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
