<?php

declare(strict_types=1);

namespace PMP\Analytics\Rest;

use WP_REST_Response;

/**
 * Answers to what is not taken, in the one shape of the mesh's errors.
 */
final class Refusal
{
    private const RETRY_AFTER_SECONDS = 60;

    /**
     * @param int $code Of google.rpc.Code.
     */
    public static function of(int $status, int $code, string $message): WP_REST_Response
    {
        return new WP_REST_Response(['code' => $code, 'message' => $message, 'details' => []], $status);
    }

    public static function too_many(): WP_REST_Response
    {
        $response = self::of(429, 8, 'Too many requests.');
        $response->header('Retry-After', (string) self::RETRY_AFTER_SECONDS);
        return $response;
    }
}
