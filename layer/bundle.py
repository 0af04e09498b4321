#!/usr/bin/env python3
"""The second half of package.sh: checks a built extension, and writes zip, checksum, SBOM and licences. Everything it writes depends on its input alone."""

import argparse
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import stat
import struct
import subprocess
import sys
import uuid
import zlib

import zopfli.zlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
INSIDE = "extensions/outlast"
MACHINES = {"x86_64": "Advanced Micro Devices X86-64", "arm64": "AArch64"}
# What every image of Lambda has: the C library in the parts that glibc 2.26 still divides it into, and nothing else.
LIBRARIES = re.compile(r"lib(c|m|dl|rt|pthread)\.so\.[0-9]+|ld-linux-(x86-64|aarch64)\.so\.[0-9]")
LICENCE_FILES = ("LICEN", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE")
# Code, such as a module `notice.rs`.
SOURCES = (".rs", ".c", ".h", ".py", ".pl", ".toml", ".json", ".yml", ".yaml")
# The earliest that a zip can tell, midnight of 1 January 1980: time, then date.
ZIP_TIME = (0, 0x21)
# Beyond five, a second of work saves some bytes.
ZOPFLI_ITERATIONS = 5


class Problem(Exception):
    """Why nothing is written."""


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


# --- the binary -------------------------------------------------------------------------------------------------------


def check_binary(path, architecture, glibc, private):
    head = run("readelf", "-hW", path)
    if MACHINES[architecture] not in head:
        raise Problem(f"{path} is not for {architecture}")
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", run("readelf", "-dW", path))
    for library in needed:
        if not LIBRARIES.fullmatch(library):
            raise Problem(f"needs {library}, which not every image of Lambda has")
    newest = newest_glibc(run("readelf", "-VW", path), glibc)
    if ".symtab" in run("readelf", "-SW", path):
        raise Problem("is not stripped")
    content = pathlib.Path(path).read_bytes()
    for place in private:
        if len(place) > 1 and place.encode() + b"/" in content:
            raise Problem(f"tells where it was built: {place}")
    return content, newest


def newest_glibc(versions, allowed):
    """The newest version of glibc among those that `readelf -V` says are needed."""
    found = set(re.findall(r"GLIBC_(\w[\w.]*)", versions))
    # Such as GLIBC_ABI_DT_RELR, which came with 2.36, and GLIBC_PRIVATE, which is nobody's but glibc's own.
    others = sorted(name for name in found if not re.fullmatch(r"[0-9]+(\.[0-9]+)*", name))
    if others:
        raise Problem(f"needs GLIBC_{others[0]}, which not every glibc since {allowed} has")
    numbers = lambda version: tuple(map(int, version.split(".")))
    newest = max(found, key=numbers, default="0")
    if numbers(newest) > numbers(allowed):
        raise Problem(f"needs glibc {newest}, but {allowed} is what Amazon Linux 2 has")
    return newest


def zip_of(content):
    """A zip with one entry, written here because `zipfile` deflates with whatever zlib a machine has, and zopfli makes it a twentieth smaller."""
    deflated = zopfli.zlib.compress(content, numiterations=ZOPFLI_ITERATIONS)[2:-4]  # without the head and tail of zlib
    assert zlib.decompress(deflated, -zlib.MAX_WBITS) == content
    name = INSIDE.encode()
    # Version 2.0, no flags, deflated, the time, checksum, sizes, length of the name, nothing extra.
    shared = struct.pack("<HHHHHIIIHH", 20, 0, 8, *ZIP_TIME, zlib.crc32(content), len(deflated), len(content), len(name), 0)
    local = b"PK\x03\x04" + shared + name + deflated
    mode = (stat.S_IFREG | 0o755) << 16
    made_by_unix = struct.pack("<BB", 20, 3)
    central = b"PK\x01\x02" + made_by_unix + shared + struct.pack("<HHHII", 0, 0, 0, mode, 0) + name
    return local + central + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)


# --- what is in it ----------------------------------------------------------------------------------------------------


def linked(target):
    """Packages whose code is in the binary, each with those it names, and the extension itself. No build scripts, no macros: they run on the machine that builds."""
    metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target))
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}

    def at_build_time(package):
        return any("proc-macro" in kind["kind"] for kind in packages[package]["targets"])

    def named(package):
        normal = [dep["pkg"] for dep in nodes[package]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
        return sorted(dep for dep in normal if not at_build_time(dep))

    root = metadata["resolve"]["root"]
    graph, left = {}, [root]
    while left:
        package = left.pop()
        if package not in graph:
            graph[package] = named(package)
            left.extend(graph[package])
    return root, packages, graph


def checksums():
    lock = (ROOT / "Cargo.lock").read_text()
    found = re.findall(r'name = "(.+)"\nversion = "(.+)"\nsource = ".+"\nchecksum = "(.+)"', lock)
    return {(name, version): checksum for name, version, checksum in found}


def expression(package):
    """The licence as SPDX writes it; Cargo also knows `A/B`."""
    return package["license"].replace("/", " OR ")


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def of_the_linker(zig_version):
    """What zig links in statically, for images have no libgcc_s: LLVM's libunwind, and zig's own compiler-rt. Each with the texts of its licence."""
    spec = importlib.util.find_spec("ziglang")
    if spec is None or not zig_version:
        return []
    home = pathlib.Path(spec.origin).parent
    return [
        ("libunwind", f"LLVM's unwinder, as zig {zig_version} brings it", "Apache-2.0 WITH LLVM-exception", home / "lib/libunwind/LICENSE.TXT"),
        ("compiler-rt", f"What compilers call, as zig {zig_version} brings it", "MIT", home / "LICENSE"),
    ]


def toolchain():
    return dict(line.split(": ", 1) for line in run("rustc", "-vV").splitlines() if ": " in line)


def sbom(root, packages, graph, content, architecture, target, linker, zig):
    sums = checksums()

    def component(identifier):
        package = packages[identifier]
        entry = {
            "type": "library",
            "bom-ref": purl(package),
            "name": package["name"],
            "version": package["version"],
            "scope": "required",
            "licenses": [{"expression": expression(package)}],
            "purl": purl(package),
        }
        checksum = sums.get((package["name"], package["version"]))
        if checksum is None:
            raise Problem(f"{package['name']} is not in Cargo.lock with a checksum")
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        if package["repository"]:
            entry["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
        return entry

    rust = toolchain()
    standard = {
        "type": "library",
        "bom-ref": f"pkg:generic/rust-std@{rust['release']}",
        "name": "rust-std",
        "version": rust["release"],
        "description": f"Rust's standard library, commit {rust['commit-hash']}",
        "scope": "required",
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
        "purl": f"pkg:generic/rust-std@{rust['release']}",
    }
    static = [
        {
            "type": "library",
            "bom-ref": f"pkg:generic/{name}@zig-{zig}",
            "name": name,
            "version": f"zig-{zig}",
            "description": description,
            "scope": "required",
            "licenses": [{"expression": licence}],
            "purl": f"pkg:generic/{name}@zig-{zig}",
        }
        for name, description, licence, _ in of_the_linker(zig)
    ]
    others = sorted((component(identifier) for identifier in graph if identifier != root), key=lambda c: c["purl"])
    main = packages[root]
    depends = [
        {"ref": purl(packages[identifier]), "dependsOn": sorted(purl(packages[dep]) for dep in deps)}
        for identifier, deps in graph.items()
    ]
    next(entry for entry in depends if entry["ref"] == purl(main))["dependsOn"].append(standard["bom-ref"])
    depends.append({"ref": standard["bom-ref"], "dependsOn": [entry["bom-ref"] for entry in static]})
    depends += [{"ref": entry["bom-ref"]} for entry in static]
    digest = hashlib.sha256(content).hexdigest()
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        # Of the binary, so that the same build tells the same.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": purl(main),
                "name": main["name"],
                "version": main["version"],
                "description": main["description"],
                "licenses": [{"expression": expression(main)}],
                "purl": purl(main),
                "hashes": [{"alg": "SHA-256", "content": digest}],
            },
            "properties": [
                {"name": "outlast:architecture", "value": architecture},
                {"name": "outlast:target", "value": target},
                {"name": "outlast:rustc", "value": f"{rust['release']} ({rust['commit-hash']})"},
                {"name": "outlast:linker", "value": linker},
            ],
        },
        "components": [*others, standard, *static],
        "dependencies": sorted(depends, key=lambda entry: entry["ref"]),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def text_of(path):
    return "\n".join(line.rstrip() for line in path.read_text("utf-8", "replace").strip().splitlines())


def licence_texts(package):
    """Every one that the package comes with, also of what it carries of others further down (`third_party/fiat` of ring)."""
    directory = pathlib.Path(package["manifest_path"]).parent

    def is_licence(path):
        names = path.relative_to(directory).parts
        named = names[-1].upper().startswith(LICENCE_FILES) or any(name.upper().startswith("LICEN") for name in names[:-1])
        return named and path.suffix.lower() not in SOURCES and path.is_file()

    # Those at the top come first.
    found = sorted(directory.rglob("*"), key=lambda path: (len(path.relative_to(directory).parts), path))
    return [text_of(path) for path in found if is_licence(path)]


def licences(root, packages, graph, zig):
    own = (ROOT / "LICENSE").read_text().strip()
    by_text, as_first_seen = {}, {}
    for identifier in sorted(graph, key=lambda i: (packages[i]["name"], packages[i]["version"])):
        package = packages[identifier]
        if identifier == root:
            continue
        texts = licence_texts(package)
        if not texts:
            if "Apache-2.0" not in expression(package).split(" OR "):
                raise Problem(f"{package['name']} comes without the text of its licence, {package['license']}")
            texts = [own]  # The licence it may be used under is also the extension's.
        name = f"{package['name']} {package['version']} ({expression(package)})"
        for text in texts:
            # Many are the same but for how their lines are broken.
            text = as_first_seen.setdefault(" ".join(text.split()), text)
            by_text.setdefault(text, []).append(name)
    by_text.setdefault(own, []).append(f"Rust's standard library {toolchain()['release']} (MIT OR Apache-2.0)")
    for name, _, licence, path in of_the_linker(zig):
        by_text.setdefault(text_of(path), []).append(f"{name} of zig {zig} ({licence})")
    rule = "=" * 80
    parts = [
        "outlast is under the Apache License 2.0. Its binary contains the packages below, each under its own licence.\n"
        "Where one offers a choice (\"OR\"), all the texts it comes with are given.\n"
    ]
    for text, names in sorted(by_text.items(), key=lambda item: item[1]):
        parts.append(f"{rule}\n" + "".join(f"{name}\n" for name in dict.fromkeys(names)) + f"{rule}\n\n{text}\n")
    return "\n".join(parts)


# --- all of it --------------------------------------------------------------------------------------------------------


def bundle(options):
    content, newest = check_binary(options.binary, options.architecture, options.glibc, options.private)
    root, packages, graph = linked(options.target)
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    archive = out / f"outlast-{options.architecture}.zip"
    # A name that exists is a file that is whole and passed every check.
    for stale in out.glob(f"outlast-{options.architecture}.*"):
        stale.unlink()
    part = archive.with_suffix(".part")
    part.write_bytes(zip_of(content))
    size = part.stat().st_size
    if size > options.zip_max_bytes:
        part.unlink()
        raise Problem(f"the zip has {size:,} bytes, {options.zip_max_bytes:,} are allowed (ZIP_MAX_BYTES in layer/package.sh)")
    digest = hashlib.sha256(part.read_bytes()).hexdigest()
    (out / f"outlast-{options.architecture}.cdx.json").write_text(
        sbom(root, packages, graph, content, options.architecture, options.target, options.linker, options.zig)
    )
    (out / f"outlast-{options.architecture}.licences.txt").write_text(licences(root, packages, graph, options.zig))
    (out / f"{archive.name}.sha256").write_text(f"{digest}  {archive.name}\n")
    os.rename(part, archive)
    print(f"{archive}: {size:,} bytes ({len(content):,} unpacked), newest symbol GLIBC_{newest}, {len(graph)} packages")
    print(f"sha256 {digest}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("binary", "target", "glibc", "linker", "out"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--zig", default="", help="the version of zig that linked it, if it did")
    parser.add_argument("--architecture", required=True, choices=sorted(MACHINES))
    parser.add_argument("--zip-max-bytes", required=True, type=int)
    parser.add_argument("--private", action="append", default=[], help="a path that the binary must not contain")
    try:
        bundle(parser.parse_args())
    except (Problem, subprocess.CalledProcessError) as problem:
        detail = getattr(problem, "stderr", None) or ""
        sys.exit(f"package: {problem}\n{detail}".rstrip())


if __name__ == "__main__":
    main()
