<?php

declare(strict_types=1);

namespace PMP\Analytics\Connect;

use PMP\Analytics\Api\Reply;
use PMP\Analytics\Delivery\Pause;
use PMP\Analytics\Queue\Cipher;
use PMP\Analytics\Queue\Unreadable;
use PMP_API_Client;
use PMP_Config;

/**
 * Connects this site with a mesh by a one-time code, and checks the way in both directions.
 */
final class Connection
{
    /** What the settings are sealed for. */
    private const CONTEXT = 'pmp connection 1';

    private const TAKE = '/api/v1/connections/take';

    private const REQUIRED = ['gateway_url', 'api_key', 'jwt_secret'];

    private const SETTINGS = [...self::REQUIRED, 'erasure_secret'];

    public function __construct(
        private readonly PMP_Config $config,
        private readonly PMP_API_Client $client,
        private readonly Pause $pause,
        private readonly WayBack $way_back,
    ) {
    }

    /**
     * Takes the settings of a code and keeps them, if they can be taken.
     *
     * @return list<Finding>
     */
    public function connect(string $pasted): array
    {
        $fixed = array_filter(self::REQUIRED, $this->config->is_fixed(...));
        if ($fixed !== []) {
            /* translators: %s: names of constants. */
            $text = __('The connection is set in wp-config.php. To connect with a code, remove these constants: %s', 'pmp-analytics');
            return [Finding::bad(sprintf($text, implode(', ', array_map($this->config->constant(...), $fixed))))];
        }
        $code = Code::read($pasted);
        if ($code === null) {
            return [Finding::bad(__('This is no code of “pmp connect wordpress”, or not all of it.', 'pmp-analytics'))];
        }
        if (! PMP_Config::is_safe($code->url)) {
            /* translators: %s: address of the mesh. */
            $text = __('The code leads to %s, which is neither https nor in your own network.', 'pmp-analytics');
            return [Finding::bad(sprintf($text, $code->url))];
        }
        $reply = $this->client->take($code->url . self::TAKE, $code->token);
        $sealed = $reply->body['sealed'] ?? null;
        if ($reply->status !== 200 || ! is_string($sealed)) {
            return [Finding::bad($this->why($reply, $code->url))];
        }
        $settings = $this->opened($sealed, $code->key);
        if ($settings === null) {
            return [Finding::bad(__('The code does not open what the mesh has for it. Make a new code.', 'pmp-analytics'))];
        }
        update_option(PMP_Config::OPTION, $settings + (array) get_option(PMP_Config::OPTION, []));
        // What waited for the connection is delivered now.
        $this->pause->forget();
        return $this->check();
    }

    /**
     * @return list<Finding>
     */
    public function check(): array
    {
        // A gateway that accepts the key and the token answers 404: there is no such user.
        $reply = $this->client->call('GET', '/api/v1/users/pmp-connection-test');
        if (! in_array($reply->status, [200, 404], true) || $reply->body === null) {
            /* translators: %s: why the mesh can't be reached. */
            return [Finding::bad(sprintf(__('The mesh does not answer as expected: %s', 'pmp-analytics'), $reply->reason()))];
        }
        /* translators: %s: address of the mesh. */
        $text = __('This site reaches the mesh at %s, and the mesh accepts its keys.', 'pmp-analytics');
        return [Finding::good(sprintf($text, $this->config->gateway_url())), ...$this->way_back->check()];
    }

    private function why(Reply $reply, string $url): string
    {
        return match ($reply->status) {
            0 => sprintf(
                /* translators: 1: address of the mesh, 2: why it can't be reached. */
                __('This site does not reach the mesh at %1$s: %2$s. With “--url” the code gets another address.', 'pmp-analytics'),
                $url,
                $reply->reason(),
            ),
            401 => __('The code was used before, or is older than ten minutes. Make a new one.', 'pmp-analytics'),
            /* translators: %s: the mesh's reason. */
            default => sprintf(__('The mesh does not accept the code: %s', 'pmp-analytics'), $reply->reason()),
        };
    }

    /**
     * @return array<string, string>|null Null if the key is of something else, or they are of another plugin's version.
     */
    private function opened(string $sealed, string $key): ?array
    {
        try {
            $settings = json_decode((new Cipher($key))->open((string) base64_decode($sealed, true), self::CONTEXT), true);
        } catch (Unreadable) {
            return null;
        }
        $known = array_filter(array_intersect_key((array) $settings, array_flip(self::SETTINGS)), is_string(...));
        return array_diff(self::REQUIRED, array_keys($known)) === [] ? $known : null;
    }
}
