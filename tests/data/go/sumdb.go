// Reads a log of the gateway, and writes one, with the code that Go's checksum database is read with
// (golang.org/x/mod/sumdb): the second opinion on hashes, tiles, notes and proofs.
//
//	sumdb read KEY LOG NOTES     every note in NOTES against the tiles and entries of LOG
//	sumdb write KEY LOG SIZE     a log of SIZE records, signed with KEY
package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

func must(err error) {
	if err != nil {
		fmt.Println("WRONG:", err)
		os.Exit(1)
	}
}

// path is where tlog-tiles puts a tile; Go puts the height into the name.
func path(log string, tile tlog.Tile) string {
	return filepath.Join(log, strings.Replace(tile.Path(), "tile/8/", "tile/", 1))
}

// wide reads a tile, or a wider one of the same place.
func wide(log string, tile tlog.Tile) ([]byte, error) {
	full := tile
	full.W = 1 << height
	if data, err := os.ReadFile(path(log, full)); err == nil {
		return data, nil
	}
	for width := tile.W; width < 1<<height; width++ {
		partial := tile
		partial.W = width
		if data, err := os.ReadFile(path(log, partial)); err == nil {
			return data, nil
		}
	}
	return nil, fmt.Errorf("no tile %s", tile.Path())
}

type reader string

func (log reader) Height() int                     { return height }
func (log reader) SaveTiles([]tlog.Tile, [][]byte) {}
func (log reader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range tiles {
		data, err := wide(string(log), tile)
		if err != nil {
			return nil, err
		}
		if len(data) < tile.W*tlog.HashSize {
			return nil, fmt.Errorf("%s is short", tile.Path())
		}
		found = append(found, data[:tile.W*tlog.HashSize])
	}
	return found, nil
}

// entries gives all entries of the log, from its bundles.
func entries(log string) [][]byte {
	var found [][]byte
	for number := int64(0); ; number++ {
		name := strings.Replace(path("", tlog.Tile{H: height, L: 0, N: number, W: 1 << height}), "tile/0/", "tile/entries/", 1)
		data, err := os.ReadFile(filepath.Join(log, name))
		if err != nil {
			best := 0
			partial, _ := os.ReadDir(filepath.Join(log, name+".p"))
			for _, one := range partial {
				if width, err := strconv.Atoi(one.Name()); err == nil && width > best {
					best = width
				}
			}
			if best == 0 {
				return found
			}
			data, err = os.ReadFile(filepath.Join(log, name+".p", strconv.Itoa(best)))
			must(err)
		}
		for len(data) > 0 {
			size := int(binary.BigEndian.Uint16(data))
			found = append(found, data[2:2+size])
			data = data[2+size:]
		}
	}
}

func read(key, log, notes string) {
	verifier, err := note.NewVerifier(key)
	must(err)
	names, err := filepath.Glob(filepath.Join(notes, "*.note"))
	must(err)
	sort.Strings(names)
	records := entries(log)
	var old tlog.Tree
	for _, name := range names {
		text, err := os.ReadFile(name)
		must(err)
		opened, err := note.Open(text, note.VerifierList(verifier))
		must(err)
		lines := strings.Split(opened.Text, "\n")
		size, err := strconv.ParseInt(lines[1], 10, 64)
		must(err)
		root, err := base64.StdEncoding.DecodeString(lines[2])
		must(err)
		tree := tlog.Tree{N: size}
		copy(tree.Hash[:], root)
		if lines[0] != verifier.Name() || int64(len(records)) < size {
			must(fmt.Errorf("%s: origin %s, %d entries", name, lines[0], len(records)))
		}
		hashes := tlog.TileHashReader(tree, reader(log))
		computed, err := tlog.TreeHash(size, hashes)
		must(err)
		if size == 0 { // this library says zeros here; RFC 6962 says the hash of nothing
			computed = sha256.Sum256(nil)
		}
		if computed != tree.Hash {
			must(fmt.Errorf("%s: root %s, tiles say %s", name, tree.Hash, computed))
		}
		for _, at := range []int64{0, size / 3, size - 1} {
			if at < 0 || at >= size {
				continue
			}
			proof, err := tlog.ProveRecord(size, at, hashes)
			must(err)
			must(tlog.CheckRecord(proof, size, tree.Hash, at, tlog.RecordHash(records[at])))
		}
		if old.N > 0 {
			proof, err := tlog.ProveTree(size, old.N, hashes)
			must(err)
			must(tlog.CheckTree(proof, size, tree.Hash, old.N, old.Hash))
		}
		old = tree
	}
	fmt.Println(len(names), "checkpoints hold")
}

type memory []tlog.Hash

func (all memory) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var found []tlog.Hash
	for _, index := range indexes {
		found = append(found, all[index])
	}
	return found, nil
}

func write(key, log, count string) {
	signer, err := note.NewSigner(key)
	must(err)
	size, err := strconv.ParseInt(count, 10, 64)
	must(err)
	var all memory
	var bundle []byte
	put := func(name string, data []byte) {
		must(os.MkdirAll(filepath.Dir(name), 0o755))
		must(os.WriteFile(name, data, 0o644))
	}
	for at := int64(0); at < size; at++ {
		record := []byte(fmt.Sprintf("record %d", at))
		stored, err := tlog.StoredHashes(at, record, all)
		must(err)
		all = append(all, stored...)
		bundle = binary.BigEndian.AppendUint16(bundle, uint16(len(record)))
		bundle = append(bundle, record...)
		if at == size-1 || at%256 == 255 {
			tile := tlog.Tile{H: height, L: 0, N: at / 256, W: int(at%256) + 1}
			put(strings.Replace(path(log, tile), "tile/0/", "tile/entries/", 1), bundle)
			bundle = nil
		}
	}
	for _, tile := range tlog.NewTiles(height, 0, size) {
		data, err := tlog.ReadTileData(tile, all)
		must(err)
		put(path(log, tile), data)
	}
	root, err := tlog.TreeHash(size, all)
	must(err)
	text := fmt.Sprintf("%s\n%d\n%s\n", signer.Name(), size, base64.StdEncoding.EncodeToString(root[:]))
	signed, err := note.Sign(&note.Note{Text: text}, signer)
	must(err)
	put(filepath.Join(log, "checkpoint"), signed)
}

func main() {
	if os.Args[1] == "read" {
		read(os.Args[2], os.Args[3], os.Args[4])
	} else {
		write(os.Args[2], os.Args[3], os.Args[4])
	}
}
