<?php

declare(strict_types=1);

namespace PMP\Analytics\Api;

use WP_REST_Request;

/**
 * A call of the mesh, signed according to Standard Webhooks: HMAC-SHA256 of its id, time and body.
 */
final class Webhook
{
    private const TOLERANCE_SECONDS = 300;

    private const SECRET_PREFIX = 'whsec_';

    private const MIN_SECRET_BYTES = 24;

    private const VERSION = 'v1,';

    private const MAX_BYTES = 1 << 20;

    /**
     * @param string $time       Seconds since 1970, from the call.
     * @param string $signatures One or more, separated by spaces, while a secret is being rotated.
     */
    public function __construct(
        public readonly string $id,
        private readonly string $time,
        private readonly string $signatures,
        private readonly string $body,
    ) {
    }

    public static function of(WP_REST_Request $request): self
    {
        return new self(
            (string) $request->get_header('webhook-id'),
            (string) $request->get_header('webhook-timestamp'),
            (string) $request->get_header('webhook-signature'),
            $request->get_body(),
        );
    }

    /**
     * Its type and data; null if the body is none of `{"type": "...", "data": {...}}`, or too large.
     *
     * @return array{type: string, data: array<mixed>}|null
     */
    public function content(): ?array
    {
        $call = strlen($this->body) <= self::MAX_BYTES ? json_decode($this->body, true, 8) : null;
        if (! is_array($call) || ! is_string($call['type'] ?? null) || ! is_array($call['data'] ?? null)) {
            return null;
        }
        return ['type' => $call['type'], 'data' => $call['data']];
    }

    /**
     * True if the call was signed with the secret, recently.
     *
     * @param string $secret As configured in the mesh: `whsec_` and base64.
     */
    public function is_signed(string $secret, float $now): bool
    {
        $key = base64_decode(str_replace(self::SECRET_PREFIX, '', $secret), true);
        if ($key === false || strlen($key) < self::MIN_SECRET_BYTES || $this->id === '' || ! ctype_digit($this->time)) {
            return false;
        }
        if (abs($now - (float) $this->time) > self::TOLERANCE_SECONDS) {
            return false;
        }
        $right = self::VERSION . base64_encode(hash_hmac('sha256', "{$this->id}.{$this->time}.{$this->body}", $key, true));
        return array_filter(explode(' ', $this->signatures), static fn (string $each): bool => hash_equals($right, $each)) !== [];
    }
}
