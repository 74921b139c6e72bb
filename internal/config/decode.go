package config

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The short tags of YAML that matter here (YAML 1.2.2, chapter 10).
const (
	tagNull  = "!!null"
	tagBool  = "!!bool"
	tagInt   = "!!int"
	tagFloat = "!!float"
	tagMerge = "!!merge"
)

// decoder fills Go values from YAML nodes. Unlike yaml's own it goes on after a problem and knows each value's key.
type decoder struct {
	problems *Problems
}

// value decodes node into target. It recurses along the Go type, so a file cannot make it go deeper.
func (d decoder) value(key string, node *yaml.Node, target reflect.Value) {
	if node.Kind == yaml.AliasNode {
		d.fail(key, node, "aliases are not supported; write the value out")
		return
	}
	if isNull(node) {
		return
	}
	if text, ok := reflect.TypeAssert[encoding.TextUnmarshaler](target.Addr()); ok {
		d.text(key, node, text)
		return
	}
	switch target.Kind() {
	case reflect.Pointer:
		fresh := reflect.New(target.Type().Elem())
		if !target.IsNil() {
			fresh.Elem().Set(target.Elem())
		}
		d.value(key, node, fresh.Elem())
		target.Set(fresh)
	case reflect.Struct:
		d.structure(key, node, target)
	case reflect.Slice:
		d.list(key, node, target)
	case reflect.Map:
		d.mapping(key, node, target)
	default:
		d.scalar(key, node, target)
	}
}

// fail reports a value that could not be taken.
func (d decoder) fail(key string, node *yaml.Node, format string, args ...any) {
	d.problems.unread[key] = true
	d.problems.add(node.Line, key, fmt.Sprintf(format, args...))
}

func (d decoder) text(key string, node *yaml.Node, target encoding.TextUnmarshaler) {
	if node.Kind != yaml.ScalarNode {
		d.fail(key, node, "expected a single value, got %s", describe(node))
		return
	}
	if err := target.UnmarshalText([]byte(node.Value)); err != nil {
		d.fail(key, node, "%s", err)
	}
}

func (d decoder) structure(key string, node *yaml.Node, target reflect.Value) {
	fields := map[string]reflect.Value{}
	collectFields(target, fields)
	d.pairs(key, node, func(child, name string, nameNode, value *yaml.Node) {
		field, ok := fields[name]
		if !ok {
			d.problems.add(nameNode.Line, child, unknown(name, fields))
			return
		}
		d.value(child, value, field)
	})
}

// collectFields finds the known keys the way yaml does: the tag, or the field's name in lower case.
func collectFields(target reflect.Value, fields map[string]reflect.Value) {
	for i := range target.NumField() {
		field := target.Type().Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		switch {
		case !field.IsExported() || name == "-":
		case slices.Contains(strings.Split(options, ","), "inline") && field.Type.Kind() == reflect.Struct:
			collectFields(target.Field(i), fields)
		case name == "":
			fields[strings.ToLower(field.Name)] = target.Field(i)
		default:
			fields[name] = target.Field(i)
		}
	}
}

func (d decoder) mapping(key string, node *yaml.Node, target reflect.Value) {
	fresh := reflect.MakeMap(target.Type())
	d.pairs(key, node, func(child, name string, _, value *yaml.Node) {
		element := reflect.New(target.Type().Elem()).Elem()
		d.value(child, value, element)
		fresh.SetMapIndex(reflect.ValueOf(name).Convert(target.Type().Key()), element)
	})
	target.Set(fresh)
}

// pairs walks the keys of a mapping, each once, and remembers their lines.
func (d decoder) pairs(key string, node *yaml.Node, visit func(child, name string, nameNode, value *yaml.Node)) {
	if node.Kind != yaml.MappingNode {
		d.fail(key, node, "expected keys with values, got %s", describe(node))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		nameNode, value := node.Content[i], node.Content[i+1]
		if nameNode.Kind != yaml.ScalarNode || isNull(nameNode) {
			d.problems.add(nameNode.Line, key, "a key must be a word, not "+describe(nameNode))
			continue
		}
		if nameNode.ShortTag() == tagMerge {
			d.problems.add(nameNode.Line, key, "merge keys are not supported; write the keys out")
			continue
		}
		name := nameNode.Value
		child := strings.TrimPrefix(key+"."+name, ".")
		if line, ok := seen[name]; ok {
			d.problems.add(nameNode.Line, child, fmt.Sprintf("given twice; it is on line %d already", line))
			continue
		}
		seen[name], d.problems.lines[child] = nameNode.Line, nameNode.Line
		visit(child, name, nameNode, value)
	}
}

func (d decoder) list(key string, node *yaml.Node, target reflect.Value) {
	if node.Kind != yaml.SequenceNode {
		d.fail(key, node, "expected a list, got %s", describe(node))
		return
	}
	fresh := reflect.MakeSlice(target.Type(), len(node.Content), len(node.Content))
	for i, item := range node.Content {
		child := key + "[" + strconv.Itoa(i) + "]"
		d.problems.lines[child] = item.Line
		if isNull(item) {
			d.fail(child, item, "an entry of the list is empty")
			continue
		}
		d.value(child, item, fresh.Index(i))
	}
	target.Set(fresh)
}

func (d decoder) scalar(key string, node *yaml.Node, target reflect.Value) {
	var ok bool
	var want string
	switch {
	case target.Kind() == reflect.String:
		want, ok = "text", setString(node, target)
	case target.Kind() == reflect.Bool:
		want, ok = "true or false", setBool(node, target)
	case target.CanInt():
		want, ok = "a whole number", setInt(node, target)
	case target.CanUint():
		want, ok = "a whole number, zero or more", setUint(node, target)
	case target.CanFloat():
		want, ok = "a number", setFloat(node, target)
	default:
		want = "a kind of value that this program does not read"
	}
	if !ok {
		d.fail(key, node, "expected %s, got %s", want, describe(node))
	}
}

// setString takes numbers and dates as they are written, since a name may look like one. It does not take true or
// false: that is a mistake more often than a name, and quotes say so where it is one.
func setString(node *yaml.Node, target reflect.Value) bool {
	if node.Kind != yaml.ScalarNode || node.ShortTag() == tagBool {
		return false
	}
	target.SetString(node.Value)
	return true
}

func setBool(node *yaml.Node, target reflect.Value) bool {
	var value bool
	if node.ShortTag() != tagBool || node.Decode(&value) != nil {
		return false
	}
	target.SetBool(value)
	return true
}

func setInt(node *yaml.Node, target reflect.Value) bool {
	var value int64
	if node.ShortTag() != tagInt || node.Decode(&value) != nil || target.OverflowInt(value) {
		return false
	}
	target.SetInt(value)
	return true
}

func setUint(node *yaml.Node, target reflect.Value) bool {
	var value uint64
	if node.ShortTag() != tagInt || node.Decode(&value) != nil || target.OverflowUint(value) {
		return false
	}
	target.SetUint(value)
	return true
}

func setFloat(node *yaml.Node, target reflect.Value) bool {
	var value float64
	if tag := node.ShortTag(); tag != tagInt && tag != tagFloat {
		return false
	}
	if node.Decode(&value) != nil || math.IsNaN(value) || math.IsInf(value, 0) {
		return false
	}
	target.SetFloat(value)
	return true
}

func isNull(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && node.ShortTag() == tagNull
}

// describe words what the file has. Long text is cut; text is quoted to tell "30" from 30.
func describe(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	case yaml.ScalarNode, yaml.DocumentNode:
	}
	const longest = 40
	text := node.Value
	if runes := []rune(text); len(runes) > longest {
		text = string(runes[:longest]) + "…"
	}
	switch node.ShortTag() {
	case tagNull:
		return "nothing"
	case tagBool, tagInt, tagFloat:
		return text
	default:
		return strconv.Quote(text)
	}
}
