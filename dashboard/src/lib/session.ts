/** Signing in and out. The session itself is a cookie that scripts can't read. */
import { forgetAnswers } from "./kept";

const LINK = /^#sign-in=([\w.-]+)$/;

/**
 * Exchanges the one-time link in the address for a session. The link leaves the address before it is used, so that it stays in no history.
 *
 * @returns why the mesh refused it; undefined if it did not, or if there is no link
 */
export async function signInFromAddress(): Promise<string | undefined> {
  const token = LINK.exec(location.hash)?.[1];
  if (!token) return undefined;
  history.replaceState(null, "", location.pathname + location.search);
  try {
    const answer = await fetch("api/v1/dashboard/sign-in", { method: "POST", headers: { authorization: `Bearer ${token}` } });
    if (answer.ok) return undefined;
    const body: unknown = await answer.json();
    return typeof body === "object" && body && "message" in body ? String(body.message) : String(answer.status);
  } catch {
    return "";
  }
}

/** Ends the session in this browser, and removes the figures that were kept in it. */
export async function signOut(): Promise<void> {
  await fetch("sign-out", { method: "POST" });
  forgetAnswers();
  location.replace(location.pathname);
}
