<?php

declare(strict_types=1);

namespace PMP\Analytics\Rest;

use PMP\Analytics\Api\Webhook;
use PMP\Analytics\Clock;
use PMP\Analytics\Hook;
use PMP\Analytics\Registerable;
use PMP_Config;
use WP_Error;
use WP_REST_Request;
use WP_REST_Response;

/**
 * A route that the mesh calls: POST, with a body that it has signed.
 */
abstract class SignedRoute implements Registerable
{
    /** The path in the space of this plugin's routes. */
    public const PATH = '';

    public function __construct(protected readonly PMP_Config $config, protected readonly Clock $clock)
    {
    }

    public function register(): void
    {
        Hook::action('rest_api_init', [$this, 'add_route']);
    }

    public function add_route(): void
    {
        register_rest_route(CollectRoute::SPACE, static::PATH, [
            'methods' => 'POST',
            'callback' => [$this, 'answer'],
            'permission_callback' => [$this, 'is_signed'],
        ]);
    }

    public function is_signed(WP_REST_Request $request): bool|WP_Error
    {
        $is_signed = Webhook::of($request)->is_signed($this->config->erasure_secret(), $this->clock->now());
        return $is_signed ?: new WP_Error('pmp_unsigned', 'Only the mesh may call this.', ['status' => 401]);
    }

    /** Answers a call whose signature is valid. */
    abstract public function answer(WP_REST_Request $request): WP_REST_Response;
}
