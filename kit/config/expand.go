package config

import (
	"fmt"
	"strings"
)

// expand replaces ${VAR} and ${VAR:-text} in s, and $$ by a dollar sign. Any other dollar sign
// stands for itself. The replacement is not looked at again.
func expand(s string, lookup func(string) (string, bool)) (string, error) {
	var out strings.Builder
	for {
		at := strings.IndexByte(s, '$')
		if at < 0 || at+1 == len(s) {
			out.WriteString(s)
			break
		}
		out.WriteString(s[:at])
		switch s[at+1] {
		case '$':
			out.WriteByte('$')
			s = s[at+2:]
		case '{':
			value, rest, err := variable(s[at+2:], lookup)
			if err != nil {
				return "", err
			}
			out.WriteString(value)
			s = rest
		default:
			out.WriteByte('$')
			s = s[at+1:]
		}
		if out.Len() > MaxValue {
			break
		}
	}
	if out.Len() > MaxValue {
		return "", fmt.Errorf("longer than %d bytes", MaxValue)
	}
	return out.String(), nil
}

// variable reads "VAR}" or "VAR:-text}" at the start of s and returns what follows it as rest.
func variable(s string, lookup func(string) (string, bool)) (value, rest string, err error) {
	end := strings.IndexByte(s, '}')
	if end < 0 {
		return "", "", fmt.Errorf("${ is not closed; write $$ for a dollar sign")
	}
	name, fallback, hasFallback := strings.Cut(s[:end], ":-")
	if !validName(name) {
		return "", "", fmt.Errorf("${%s} does not name a variable; write ${VAR} or ${VAR:-text}",
			s[:end])
	}
	value, set := lookup(name)
	switch {
	case hasFallback && value == "":
		return fallback, s[end+1:], nil
	case !set:
		return "", "", fmt.Errorf(
			"environment variable %s is not set; set it or write ${%s:-default}", name, name)
	}
	return value, s[end+1:], nil
}

func validName(name string) bool {
	if name == "" || name[0] >= '0' && name[0] <= '9' {
		return false
	}
	return strings.IndexFunc(name, func(c rune) bool {
		return c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
	}) < 0
}
