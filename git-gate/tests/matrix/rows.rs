//! The operations, as shell scripts. `$URL` is the repository, `$BASE` where its neighbours `empty`, `sha256`, `lib` and
//! `absent` are, `$ROOT` the folder of the upstreams themselves; `say`, `look` and `commit` are in the prelude.

/// One operation.
pub struct Row {
    pub name: &'static str,
    pub script: &'static str,
    /// Does it run in every setting?
    pub core: bool,
    /// Does it fail direct too, on purpose?
    pub fails: bool,
    /// What the gate refuses on purpose says this.
    pub gate: Option<&'static str>,
}

const fn row(name: &'static str, script: &'static str) -> Row {
    Row { name, script, core: false, fails: false, gate: None }
}

/// One in which versions of git, of the protocol and kinds of upstreams could differ.
const fn core(name: &'static str, script: &'static str) -> Row {
    Row { name, script, core: true, fails: false, gate: None }
}

const fn failing(name: &'static str, script: &'static str) -> Row {
    Row { name, script, core: false, fails: true, gate: None }
}

const fn refused(name: &'static str, script: &'static str, gate: &'static str) -> Row {
    Row { name, script, core: true, fails: false, gate: Some(gate) }
}

pub const ROWS: &[Row] = &[
    row("ls-remote", r#"git ls-remote "$URL""#),
    core("ls-remote --symref", r#"git ls-remote --symref "$URL" HEAD"#),
    row("ls-remote --heads pattern", r#"git ls-remote --heads "$URL" 'd*'"#),
    row("ls-remote of an empty repository", r#"git ls-remote "$BASE/empty.git""#),
    core("clone", r#"git clone -q "$URL" c && look c && cat c/counter"#),
    row("clone without .git", r#"git ls-remote "${URL%.git}" >/dev/null 2>&1; git clone -q "$URL" c && look c"#),
    row("clone --bare", r#"git clone -q --bare "$URL" c && look c"#),
    core("clone --mirror", r#"git clone -q --mirror "$URL" c && look c && git -C c remote update"#),
    row("clone --single-branch", r#"git clone -q --single-branch -b dev "$URL" c && look c"#),
    row("clone --no-tags", r#"git clone -q --no-tags "$URL" c && look c"#),
    core("clone of an empty repository", r#"git clone -q "$BASE/empty.git" c; echo $?; git -C c symbolic-ref HEAD"#),
    row("clone --depth 1", r#"git clone -q --depth 1 "$URL" c && look c && git -C c rev-list --count HEAD"#),
    core(
        "clone --depth, deepen, unshallow",
        r#"git clone -q --depth 1 "$URL" c && cd c && git fetch -q --deepen 1 && git rev-list --count HEAD &&
           git fetch -q --depth 4 && git rev-list --count HEAD && git fetch -q --unshallow && look ."#,
    ),
    core("clone --shallow-since", r#"git clone -q --shallow-since=1700000004 "$URL" c && look c"#),
    row("clone --shallow-exclude", r#"git clone -q --shallow-exclude=light "$URL" c && look c"#),
    core(
        "clone --filter=blob:none",
        r#"git clone -q --filter=blob:none "$URL" c && cat c/counter && git -C c log --oneline -p | wc -l"#,
    ),
    row(
        "clone --filter=tree:0",
        r#"git clone -q --filter=tree:0 --no-checkout "$URL" c && git -C c checkout -q && cat c/counter"#,
    ),
    row("clone --filter=blob:limit", r#"git clone -q --filter=blob:limit=100 "$URL" c && cat c/dir/1/numbers | wc -l"#),
    core("clone sha256", r#"git clone -q "$BASE/sha256.git" c; cd c && git rev-parse --show-object-format"#),
    row("fetch a branch", r#"git init -q c && cd c && git fetch -q "$URL" dev && git rev-parse FETCH_HEAD"#),
    core("fetch a tag", r#"git init -q c && cd c && git fetch -q "$URL" tag v1 && look ."#),
    row("fetch --tags", r#"git init -q c && cd c && git fetch -q --tags "$URL" && look ."#),
    row("fetch notes", r#"git init -q c && cd c && git fetch -q "$URL" 'refs/notes/*:refs/notes/*' && look ."#),
    core(
        "fetch by object",
        r#"git init -q c && cd c && git fetch -q "$URL" "$(git -C "$ROOT/up.git" rev-parse main~3)" && git rev-parse FETCH_HEAD"#,
    ),
    failing("fetch an absent ref", r#"git init -q c && cd c && git fetch -q "$URL" nothing"#),
    failing(
        "fetch an absent object",
        r#"git init -q c && cd c && git fetch -q "$URL" 1234567890123456789012345678901234567890"#,
    ),
    row(
        "fetch --prune",
        r#"git clone -q "$URL" c && git -C "$ROOT/up.git" update-ref -d refs/heads/dev && git -C c fetch -q --prune && look c"#,
    ),
    core(
        "fetch what is new",
        r#"git clone -q "$URL" c && git clone -q "$ROOT/up.git" o && (cd o && commit new && git push -q origin main) && git -C c pull -q --ff-only && look c"#,
    ),
    row(
        "fetch shows a moved HEAD",
        r#"git clone -q "$URL" c && git -C "$ROOT/up.git" symbolic-ref HEAD refs/heads/dev && git ls-remote --symref "$URL" HEAD"#,
    ),
    core(
        "fetch with much to negotiate",
        r#"git clone -q "$URL" c && git clone -q "$ROOT/up.git" o && (cd o && commit new && git push -q origin main) &&
           cd c && for i in $(seq 1 60); do commit own$i; done && git fetch -q && look . && git rebase -q origin/main && git rev-list --count HEAD"#,
    ),
    row(
        "fetch of unrelated history",
        r#"git init -q c && cd c && for i in $(seq 1 40); do commit x$i; done && git fetch -q "$URL" main && git rev-parse FETCH_HEAD"#,
    ),
    row(
        "fetch -j of two remotes",
        r#"git init -q c && cd c && git remote add a "$URL" && git remote add b "$BASE/lib.git" && git fetch -q --multiple -j2 a b && look ."#,
    ),
    row(
        "pull --rebase",
        r#"git clone -q "$URL" c && git clone -q "$ROOT/up.git" o && (cd o && commit new && git push -q origin main) && cd c && commit mine && git pull -q --rebase && git log --format=%s -3"#,
    ),
    row(
        "a submodule by a relative URL",
        r#"git clone -q "$URL" c && cd c && git -c protocol.file.allow=always submodule --quiet add ../lib.git lib && git commit -qm sub && git push -q origin main && cd .. && git clone -q --recursive "$URL" d && cat d/lib/counter"#,
    ),
    core(
        "push a new branch",
        r#"git clone -q "$URL" c && cd c && git checkout -q -b new && commit a && say git push -q -u origin new && look ."#,
    ),
    row("push an update", r#"git clone -q "$URL" c && cd c && commit a && say git push -q origin main && look ."#),
    row(
        "push twenty commits",
        r#"git clone -q "$URL" c && cd c && for i in $(seq 1 20); do commit a$i; done && say git push -q origin main"#,
    ),
    core(
        "push to an empty repository",
        r#"git init -q c && cd c && commit a && say git push -q "$BASE/empty.git" HEAD:main"#,
    ),
    core(
        "push sha256",
        r#"git init -q --object-format=sha256 c && cd c && commit a && say git push -q "$BASE/sha256.git" HEAD:main && git ls-remote "$BASE/sha256.git""#,
    ),
    core(
        "push --force",
        r#"git clone -q "$URL" c && cd c && git reset -q --hard HEAD~1 && commit a && say git push -q --force origin main"#,
    ),
    failing(
        "push without force",
        r#"git clone -q "$URL" c && cd c && git reset -q --hard HEAD~1 && commit a && git push -q origin main"#,
    ),
    row(
        "push --force-with-lease",
        r#"git clone -q "$URL" c && cd c && git reset -q --hard HEAD~1 && commit a && say git push -q --force-with-lease origin main"#,
    ),
    failing(
        "push --force-with-lease, stale",
        r#"git clone -q "$URL" c && git clone -q "$ROOT/up.git" o && (cd o && commit new && git push -q origin main) && cd c && git reset -q --hard HEAD~1 && commit a && git push -q --force-with-lease origin main"#,
    ),
    core(
        "push an annotated tag",
        r#"git clone -q "$URL" c && cd c && git tag -a -m x v2 && say git push -q origin v2"#,
    ),
    row("push --tags", r#"git clone -q "$URL" c && cd c && git tag a && git tag -a -m x b && say git push -q --tags"#),
    row(
        "push --follow-tags",
        r#"git clone -q "$URL" c && cd c && commit a && git tag -a -m x b && say git push -q --follow-tags origin main"#,
    ),
    row(
        "push a tag of a blob",
        r#"git clone -q "$URL" c && cd c && git tag blob "$(echo hello | git hash-object -w --stdin)" && say git push -q origin blob"#,
    ),
    row(
        "push notes",
        r#"git clone -q "$URL" c && cd c && git notes add -m hello && say git push -q origin refs/notes/commits:refs/notes/own"#,
    ),
    core("push --delete", r#"git clone -q "$URL" c && cd c && say git push -q --delete origin dev && look ."#),
    row(
        "push a delete beside an update",
        r#"git clone -q "$URL" c && cd c && commit a && say git push -q origin main :dev"#,
    ),
    row(
        "push what is there under another name",
        r#"git clone -q "$URL" c && cd c && say git push -q origin main~2:refs/heads/other"#,
    ),
    core(
        "push with nothing to push",
        r#"git clone -q "$URL" c && cd c && git push --porcelain origin main | sed "s,^To .*,To URL,""#,
    ),
    row("push --dry-run", r#"git clone -q "$URL" c && cd c && commit a && say git push -q --dry-run origin main"#),
    row(
        "push --porcelain",
        r#"git clone -q "$URL" c && cd c && commit a && git push --porcelain origin main HEAD:new | sed "s,^To .*,To URL,""#,
    ),
    row("push --all", r#"git clone -q "$URL" c && cd c && git branch x && git branch y && say git push -q --all"#),
    row(
        "push --mirror",
        r#"git clone -q --mirror "$URL" c && cd c && git update-ref refs/heads/x main && git update-ref -d refs/heads/dev && say git push -q --mirror"#,
    ),
    row(
        "push --prune",
        r#"git clone -q "$URL" c && cd c && say git push -q --prune origin 'refs/heads/*:refs/heads/*'"#,
    ),
    core(
        "push --atomic",
        r#"git clone -q "$URL" c && cd c && commit a && say git push -q --atomic origin main HEAD:x"#,
    ),
    failing(
        "push --atomic, one of them refused",
        r#"git clone -q "$URL" c && printf '#!/bin/sh\n[ "$1" != refs/heads/no ]\n' > "$ROOT/up.git/hooks/update" && chmod +x "$ROOT/up.git/hooks/update" && cd c && commit a && git push -q --atomic origin main HEAD:no"#,
    ),
    failing(
        "push, one of two refused by a hook",
        r#"git clone -q "$URL" c && printf '#!/bin/sh\n[ "$1" != refs/heads/no ]\n' > "$ROOT/up.git/hooks/update" && chmod +x "$ROOT/up.git/hooks/update" && cd c && commit a && git push --porcelain origin main HEAD:no | sed "s,^To .*,To URL,;/^Done/d"; git push -q origin HEAD:no"#,
    ),
    failing(
        "push refused by pre-receive",
        r#"git clone -q "$URL" c && printf '#!/bin/sh\necho a word from the hook\nexit 1\n' > "$ROOT/up.git/hooks/pre-receive" && chmod +x "$ROOT/up.git/hooks/pre-receive" && cd c && commit a && git push origin main > log 2>&1; rc=$?; grep -c 'a word from the hook' log; grep -o '.remote rejected.*' log; exit $rc"#,
    ),
    core(
        "push and hear post-receive",
        r#"git clone -q "$URL" c && printf '#!/bin/sh\necho a word from the hook\n' > "$ROOT/up.git/hooks/post-receive" && chmod +x "$ROOT/up.git/hooks/post-receive" && cd c && commit a && git push origin main > log 2>&1 && grep -o 'remote: .*' log"#,
    ),
    core(
        "push -o option",
        r#"git clone -q "$URL" c && printf '#!/bin/sh\necho "$GIT_PUSH_OPTION_COUNT $GIT_PUSH_OPTION_0 $GIT_PUSH_OPTION_1" > %s/options\n' "$ROOT" > "$ROOT/up.git/hooks/pre-receive" && chmod +x "$ROOT/up.git/hooks/pre-receive" && cd c && commit a && say git push -q -o ci.skip -o 'title=a b' origin main && cat "$ROOT/options""#,
    ),
    row(
        "push --signed=if-asked",
        r#"git clone -q "$URL" c && cd c && commit a && say git push -q --signed=if-asked origin main"#,
    ),
    failing(
        "push --signed",
        r#"git clone -q "$URL" c && cd c && commit a && git push -q --signed origin main && exit 0; exit 1"#,
    ),
    core(
        "push with push.negotiate",
        r#"git clone -q "$URL" c && cd c && commit a && say git -c push.negotiate=true push -q origin main"#,
    ),
    core(
        "push from a shallow clone",
        r#"git clone -q --depth 1 "$URL" c && cd c && commit a && say git push -q origin HEAD:shallow"#,
    ),
    row(
        "push from a partial clone",
        r#"git clone -q --filter=blob:none "$URL" c && cd c && commit a && say git push -q origin HEAD:partial"#,
    ),
    row(
        "push a merge",
        r#"git clone -q "$URL" c && cd c && git checkout -q -b x HEAD~2 && commit a && git checkout -q main && git merge -q --no-ff -m m x && say git push -q origin main"#,
    ),
    row(
        "push modes and links",
        r#"git clone -q "$URL" c && cd c && ln -s counter link && echo x > run && chmod +x run && git add -A && commit a && say git push -q origin main"#,
    ),
    row(
        "push a file of 3 MB",
        r#"git clone -q "$URL" c && cd c && seq 1 420000 > big && git add big && commit a && say git push -q origin main"#,
    ),
    row(
        "push with a hook that waits",
        r#"git clone -q "$URL" c && cd c && printf '#!/bin/sh\nsleep 2\n' > .git/hooks/pre-push && chmod +x .git/hooks/pre-push && commit a && say git push -q origin main"#,
    ),
    row(
        "push 300 branches",
        r#"git clone -q "$URL" c && cd c && commit a && for i in $(seq 1 300); do git update-ref refs/heads/b$i HEAD; done && say git push -q --all && git ls-remote --heads origin | wc -l"#,
    ),
    failing(
        "push to a ref that was raced",
        r#"git clone -q "$URL" c && git clone -q "$ROOT/up.git" o && cd o && commit new && cd ../c && printf '#!/bin/sh\ngit -C %s/../work/o push -q origin main\n' "$ROOT" > .git/hooks/pre-push && chmod +x .git/hooks/pre-push && commit a && git push -q origin main"#,
    ),
    failing("an absent repository", r#"git ls-remote "$BASE/absent.git""#),
    refused("git archive --remote", r#"git archive --remote="$URL" HEAD > archive"#, "not offered"),
    refused("a name that is no remote", r#"git ls-remote "$BASE/nobody.git""#, "no remote `nobody`"),
];
