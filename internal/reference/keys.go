package reference

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Key is a key of a configuration file.
type Key struct {
	Path    string // such as nodes[].name
	Type    string // in a reader's words
	Default string // as the file would have it; "" for none
	Limits  string // "" for none
	Meaning string

	required bool
}

// Keys walks the yaml tags of a settings struct, whose values are the defaults and whose package's files are in dir. The
// meaning of a key is the comment of its field; a field without one is an error. Type and limits are what the checks say;
// lines of the comment that begin with "Type: " or "Limits: " come before that, and a line "Required." says what a check
// of a list's items cannot.
func Keys(settings any, dir string) ([]Key, error) {
	code, err := parse(dir)
	if err != nil {
		return nil, err
	}
	return code.keys("", reflect.Indirect(reflect.ValueOf(settings)))
}

// KeyTable is the reference of the keys.
func KeyTable(keys []Key) string {
	rows := make([][]string, len(keys))
	for i, k := range keys {
		value := code(k.Default)
		switch {
		case k.Default == "" && k.required:
			value = "required"
		case k.Default == "":
			value = "none"
		}
		rows[i] = []string{code(k.Path), k.Type, value, k.Limits, k.Meaning}
	}
	return table([]string{"Key", "Type", "Default", "Limits", "Meaning"}, rows)
}

func (s *source) keys(prefix string, settings reflect.Value) ([]Key, error) {
	var list []Key
	for i := range settings.NumField() {
		field := settings.Type().Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if name == "" || name == "-" {
			return nil, fmt.Errorf("reference: field %s of %s has no yaml tag", field.Name, settings.Type())
		}
		comment := s.comments[settings.Type().Name()+"."+field.Name]
		below, err := s.key(prefix+name, comment, settings.Field(i))
		if err != nil {
			return nil, err
		}
		list = append(list, below...)
	}
	return list, nil
}

// key returns the key of one value with those below it. A struct is no key by itself: its keys are.
func (s *source) key(path, comment string, value reflect.Value) ([]Key, error) {
	_, isText := reflect.TypeAssert[encoding.TextMarshaler](value)
	if value.Kind() == reflect.Struct && !isText {
		return s.keys(path+".", value)
	}
	key := s.described(path, comment, value)
	if key.Meaning == "" {
		return nil, fmt.Errorf("reference: the field of the key %s has no comment", path)
	}
	if value.Kind() == reflect.Slice && value.Type().Elem().Kind() == reflect.Struct {
		key.Default = "[]"
		below, err := s.keys(path+"[].", reflect.Zero(value.Type().Elem()))
		return append([]Key{key}, below...), err
	}
	var err error
	if key.Default, err = written(value); err != nil {
		return nil, fmt.Errorf("reference: key %s: %w", path, err)
	}
	return []Key{key}, nil
}

// described is a key with what its check and its comment say.
func (s *source) described(path, comment string, value reflect.Value) Key {
	found := s.checks[path]
	k := Key{Path: path, Type: found.kind, Limits: found.limits, required: found.required}
	if k.Type == "" {
		k.Type = plain(value.Kind())
	}
	var words []string
	for line := range strings.SplitSeq(strings.TrimSpace(comment), "\n") {
		kind, isType := strings.CutPrefix(line, "Type: ")
		limits, isLimits := strings.CutPrefix(line, "Limits: ")
		switch {
		case isType:
			k.Type = strings.TrimSuffix(kind, ".")
		case isLimits:
			k.Limits = strings.TrimSuffix(limits, ".")
		case line == "Required.":
			k.required = true
		default:
			words = append(words, line)
		}
	}
	k.Meaning = strings.Join(words, " ")
	return k
}

// plain is the type of a key that no check describes.
func plain(kind reflect.Kind) string {
	switch kind {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64, reflect.Float64:
		return "number"
	case reflect.Slice:
		return "list"
	default:
		return "text"
	}
}

// written is a value as the file would have it.
func written(value reflect.Value) (string, error) {
	if text, ok := reflect.TypeAssert[encoding.TextMarshaler](value); ok {
		content, err := text.MarshalText()
		if d, timeErr := time.ParseDuration(string(content)); timeErr == nil && string(content) != "0" {
			return short(d), err
		}
		return string(content), err
	}
	switch value.Kind() {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int64, reflect.Float64:
		return fmt.Sprint(value.Interface()), nil
	case reflect.Slice:
		items := make([]string, value.Len())
		for i := range items {
			items[i] = fmt.Sprintf("%q", fmt.Sprint(value.Index(i).Interface()))
		}
		return "[" + strings.Join(items, ", ") + "]", nil
	default:
		return "", fmt.Errorf("a %s cannot be written down: teach this package", value.Type())
	}
}
